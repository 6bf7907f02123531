"""Lists the commands: python -m qkd_tf."""

from qkd_tf.commands import overview
from qkd_tf.console.invocation import spelled_as_called


def main() -> None:
    with spelled_as_called():
        print(overview())


if __name__ == "__main__":
    main()
