from benchmarks import kept_results


def test_each_run_is_kept_and_all_that_lie_there_are_shown(tmp_path, capsys):
    folder = tmp_path / "kept"
    kept_results.keep(folder / "b.json", {"run": "b", "bytes": 7})

    def measure(run_dir):
        return {"run": run_dir.name, "bytes": len(str(run_dir))}

    kept_results.of_runs(
        ["runs/a"], measure, folder, ("run", "bytes"), lambda kept: [(kept["run"], f"{kept['bytes']}")]
    )
    assert capsys.readouterr().out == "| run | bytes |\n| --- | --- |\n| a | 6 |\n| b | 7 |\n"
    assert (folder / "a.json").read_text() == '{\n "run": "a",\n "bytes": 6\n}\n'
