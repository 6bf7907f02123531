"""Lists the commands: python -m qkd_tf."""

from qkd_tf.commands import overview


def main() -> None:
    print(overview())


if __name__ == "__main__":
    main()
