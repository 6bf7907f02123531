"""Kills, damage, full disks and wrong clocks, for real: python -m benchmarks.soak [--work=DIR] [--kills=50] [--parts=…]

A run of four phases on the digits is trained and exported once without trouble. Then trouble comes, at moments and
bytes that are drawn at random, and each time the project has to end with the same bits (history, weights.npz,
integer_logits.npz, model.tflite) or to refuse with one line that names the reason. Parts that are done are kept in
DIR/parts.json: the campaign resumes where it was stopped. Disks are filled on a tmpfs, which takes root.
"""

if __name__ == "__main__":
    from qkd_tf.console import quiet  # noqa: F401  before anything that imports TensorFlow

# isort: split
import functools
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
from absl import app
from absl import flags as absl_flags

from benchmarks import damage
from benchmarks.soak_subject import SAMPLE_FLAGS, Child, End, export_it, flag_lines, outcome, train_it
from qkd_tf.experiment import ExperimentError
from qkd_tf.storage import durable
from qkd_tf.storage.checkpoints import Checkpoints
from qkd_tf.storage.run_folder import PLACE_FLAGS, RunFolder
from tflite_export.export_error import ExportError
from tflite_export.finished_run import results_of
from tflite_export.load import load_handoff

absl_flags.DEFINE_string("work", "runs/soak", "Folder of the campaign.")
absl_flags.DEFINE_integer("kills", 50, "Processes to kill.")
absl_flags.DEFINE_integer("soak_seed", 0, "Of the moments and bytes.")
absl_flags.DEFINE_bool("sample", False, "A run of one phase, and files spoilt once each.")
absl_flags.DEFINE_list("parts", [], "Parts by name; empty: all.")
FLAGS = absl_flags.FLAGS

EVERY_STEPS = (0, 3, 7)  # --checkpoint_every_steps may change from start to start
SHARE_OF_SIGTERM = 0.3


class Campaign:
    """A folder with the run without trouble, and what came of each part.

    Attributes:
      expected: `outcome` of the run without trouble.
      seconds: that it took.
      flags: that all its runs have, beside those of `soak_subject`.
      times: that each file is spoilt in each way.
    """

    def __init__(self, work: pathlib.Path, seed: int, sample: bool):
        self.work = work
        self.flags = SAMPLE_FLAGS if sample else ()
        self.times = 1 if sample else 3
        self.rng = np.random.default_rng(seed)
        work.mkdir(parents=True, exist_ok=True)
        self._log = work / "child.log"
        reference = work / "reference"
        start = time.monotonic()
        if not (reference / "export" / "verification.json").exists():
            for end in (self.train(reference), self.run(functools.partial(export_it, reference))):
                if end.code:
                    sys.exit(f"error: the run without trouble has failed: {end.log[-2000:]}")
            (work / "seconds.json").write_text(json.dumps(time.monotonic() - start))
        self.seconds = json.loads((work / "seconds.json").read_text())
        self.expected = outcome(reference)

    def start(self, action) -> Child:
        return Child(action, self._log)

    def run(self, action) -> End:
        return self.start(action).end()

    def train(self, run_dir: pathlib.Path) -> End:
        return self.run(self.training(run_dir))

    def training(self, run_dir: pathlib.Path):
        """To be run in a child."""
        every = self.rng.choice(EVERY_STEPS)
        return functools.partial(train_it, run_dir, *self.flags, f"--checkpoint_every_steps={every}")

    def finishes(self, run_dir: pathlib.Path) -> str:
        """Trains and exports what is left; "" where the bits are the expected ones, else what is wrong."""
        for end in (self.train(run_dir), self.run(functools.partial(export_it, run_dir))):
            if end.code:
                return f"exit code {end.code}: {end.log[-500:]}"
        found = outcome(run_dir)
        return ", ".join(name for name in self.expected if found[name] != self.expected[name])

    def fresh(self, name: str, like: pathlib.Path | None = None) -> pathlib.Path:
        """A folder of that name that is not there, or a copy."""
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        if like is not None:
            shutil.copytree(like, folder)
        return folder

    def half_done(self) -> pathlib.Path:
        """A run that SIGTERM has stopped in its middle, with two checkpoints."""
        folder = self.work / "half_done"
        if not (folder / "stopped").exists():
            action = functools.partial(train_it, self.fresh("half_done"), *self.flags, "--checkpoint_every_steps=7")
            child = self.start(action)
            phase = 0 if self.flags else 2
            while not list(folder.glob(f"checkpoints/phase{phase}_epoch1_step*[0-9]")):
                if end := child.end(0.05):
                    sys.exit(f"error: it has ended with {end.code}: {end.log[-2000:]}")
            child.signal(signal.SIGTERM)
            child.end()
            (folder / "stopped").write_text("")
        return folder


def kills(campaign: Campaign) -> list[dict]:
    """SIGKILL and SIGTERM to training and export: half of them at any time, half soon after a new checkpoint.

    The second half is for machines so slow that a process would be killed again and again before its first step.
    """
    rows, wrong, index = {name: row(name) for name in ("SIGKILL", "SIGTERM", "finished with the same bits")}, [], 0
    where: dict[str, int] = {}

    def left() -> int:
        return FLAGS.kills - rows["SIGKILL"]["tried"] - rows["SIGTERM"]["tried"]

    while left() > 0:
        run_dir, killed = campaign.fresh("killed"), 0
        while left() > 0:
            trained = (run_dir / "results.json").exists()
            action = functools.partial(export_it, run_dir) if trained else campaign.training(run_dir)
            before = _names(run_dir)
            child = campaign.start(action)
            end = _moment(campaign, child, run_dir, trained)
            if end is not None:
                wrong += [f"kill-free start ended with {end.code}: {end.log[-300:]}"] if end.code else []
                if trained or end.code:
                    break
                continue
            name = "SIGTERM" if campaign.rng.random() < SHARE_OF_SIGTERM else "SIGKILL"
            child.signal(getattr(signal, name))
            end = child.end()
            place = _place(before, _names(run_dir), trained)
            where[place] = where.get(place, 0) + 1
            killed += 1
            rows[name]["tried"] += 1
            # SIGTERM before the handlers are there, and of the export, is the system's own; 0 where it came too late
            rows[name]["held"] += end.code in ((-signal.SIGKILL, 0) if name == "SIGKILL" else (143, -signal.SIGTERM, 0))
            if "Traceback" in end.log:
                wrong.append(f"{name} in {place}: {end.log[-500:]}")
            print(f"{name} in {place}: {end.code}", flush=True)
        index += 1
        rows["finished with the same bits"]["tried"] += 1
        failure = campaign.finishes(run_dir)
        rows["finished with the same bits"]["held"] += not failure
        wrong += [f"run {index}, killed {killed} times: {failure}"] if failure else []
        print(f"run {index}: killed {killed} times, {failure or 'same bits'}", flush=True)
    return [*rows.values(), {**row("killed in"), "where": where, "wrong": wrong}]


def _moment(campaign: Campaign, child: Child, run_dir: pathlib.Path, trained: bool) -> End | None:
    """Waits for the moment of a kill; the child's end where it comes first."""
    if trained or campaign.rng.random() < 0.5:
        return child.end(campaign.rng.uniform(0, campaign.seconds * (0.15 if trained else 0.5)))
    before = _names(run_dir)
    while _names(run_dir) == before:
        if end := child.end(0.02):
            return end
    return child.end(campaign.rng.uniform(0, 2))


def _names(run_dir: pathlib.Path) -> set[str]:
    """What lies in the run folder and among its checkpoints; what a kill left unfinished may lie there for long."""
    return {path.name for pattern in ("*", "checkpoints/*") for path in run_dir.glob(pattern)}


def _place(before: set[str], now: set[str], trained: bool) -> str:
    """Where a kill has hit, by what lay there at the start and lies there now."""
    if trained:
        return "export"
    if "handoff.part" in now - before or "handoff" in now:
        return "handoff"
    if any(name.endswith(".part") for name in now - before):
        return "writing a checkpoint"
    positions = [name.split("_")[0] for name in now if name.startswith("phase") and not name.endswith(".part")]
    return max(positions, default="before the first checkpoint")


def spoilt_files(campaign: Campaign) -> list[dict]:
    """Each file of a run, damaged in each way, in a child of its own since TensorFlow is asked."""
    found, half = campaign.work / "spoilt.json", campaign.half_done()
    end = campaign.run(functools.partial(_spoilt_files, campaign, half, found))
    return json.loads(found.read_text()) if not end.code else [{**row("child"), "tried": 1, "wrong": [end.log[-800:]]}]


def _spoilt_files(campaign: Campaign, half: pathlib.Path, found: pathlib.Path) -> None:
    rng, scratch, reference = campaign.rng, campaign.work / "scratch", campaign.work / "reference"
    rows = []

    def ask(what, folder, names, times, look, refusals):
        expected, wrong, tried = look(folder), [], 0
        for name, spoilt in damage.cases(folder, names, times, rng, scratch):
            tried += 1
            if not damage.noticed(functools.partial(look, spoilt), expected, refusals):
                wrong.append(f"{what}: {name}")
        rows.append({**row(what), "tried": tried, "held": tried - len(wrong), "wrong": wrong})

    # Of two checkpoints the newest is damaged: the other one is to be found, and to be told of.
    lines = flag_lines(half, *campaign.flags)
    experiment = RunFolder(str(half), lines).experiment
    newest, before = sorted((half / "checkpoints").glob("phase*"), key=lambda path: path.stat().st_mtime)[::-1]

    def progress(folder):
        return Checkpoints(folder, experiment).newest()[1]

    one, whole = campaign.fresh("one") / newest.name, progress(half / "checkpoints")
    shutil.copytree(newest, one)
    files = sorted(path.name for path in one.iterdir())
    ask(
        "checkpoint, the only one",
        one.parent,
        [f"{one.name}/{n}" for n in files],
        campaign.times,
        progress,
        (ExperimentError,),
    )
    wrong, tried = [], 0
    names = [f"{newest.name}/{name}" for name in files]
    for name, spoilt in damage.cases(half / "checkpoints", names, campaign.times, rng, scratch):
        path, told = Checkpoints(spoilt, experiment).newest()
        tried += 1
        if not (path.name == before.name or told == whole):
            wrong.append(name)
    rows.append({**row("checkpoint, the newest of two"), "tried": tried, "held": tried - len(wrong), "wrong": wrong})

    files = sorted(path.name for path in (reference / "handoff").iterdir())

    def handoff(folder):
        loaded = load_handoff(folder)
        return [loaded.label_names, *(v.tobytes() for v in (*loaded.weights.values(), loaded.student_logits))]

    ask("handoff", reference / "handoff", files, campaign.times, handoff, (ExportError,))
    small = campaign.fresh("small")
    small.mkdir()
    shutil.copy(reference / "results.json", small)
    shutil.copytree(reference / "handoff", small / "handoff")
    ask("results.json", small, ["results.json"], 2 * campaign.times, results_of, (ExportError,))

    def flags_of(folder):
        RunFolder(str(folder), lines)
        told = (folder / "flags.txt").read_text(errors="replace").splitlines()
        places = tuple(f"--{name}=" for name in PLACE_FLAGS)
        return [line for line in told if line and not line.startswith(places)]

    small = campaign.fresh("small")
    (small / "checkpoints").mkdir(parents=True)
    shutil.copy(half / "flags.txt", small)
    ask("flags.txt", small, ["flags.txt"], 2 * campaign.times, flags_of, (ExperimentError,))
    found.write_text(json.dumps(rows))


def spoilt_runs(campaign: Campaign) -> list[dict]:
    """A run whose newest checkpoint is damaged resumes from the one before, to the same bits."""
    half, rows = campaign.half_done(), {**row("runs with a damaged newest checkpoint"), "wrong": []}
    newest = max((half / "checkpoints").glob("phase*"), key=lambda path: path.stat().st_mtime)
    for name in ("manifest.json", "progress.json", "state.index"):
        run_dir = campaign.fresh("spoilt", half)
        path = run_dir / "checkpoints" / newest.name / name
        path.write_bytes(damage.KINDS["cut"](path.read_bytes(), b"", campaign.rng))
        count(rows, campaign.finishes(run_dir), name)
    return [rows]


def full_disks(campaign: Campaign) -> list[dict]:
    """A tmpfs that is too small for the run, in several sizes; then a larger one."""
    rows = {**row("full disk: one line, then the same bits"), "wrong": []}
    limit = sum(path.stat().st_size for path in (campaign.work / "reference").rglob("*") if path.is_file())
    for share in (0.02, 0.3, 0.6, 0.9):
        disk = campaign.fresh("disk")
        disk.mkdir()
        size = 4096 * round(campaign.rng.uniform(0.9, 1.1) * share * limit / 4096)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], check=True)
        try:
            ends = [campaign.train(disk / "run")]
            if not ends[-1].code:
                ends.append(campaign.run(functools.partial(export_it, disk / "run")))
            complaint = ends[-1].complaint
            subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
            failure = campaign.finishes(disk / "run")
            if ends[-1].code and "No space left" not in complaint:
                failure = f"no reason told: {ends[-1].code} {ends[-1].log[-600:]}"
            print(f"disk of {size:,} bytes: {complaint or 'room enough'}", flush=True)
            count(rows, failure, f"{size:,} bytes")
        finally:
            subprocess.run(["umount", "-l", str(disk)], check=True)
    return [rows]


def read_only(campaign: Campaign) -> list[dict]:
    """A run folder that cannot be written: training goes on when it can; the export tells the reason."""
    rows = {**row("read-only folder: one line, then the same bits"), "wrong": []}
    disk = campaign.fresh("disk")
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(disk)], check=True)
    try:
        shutil.copytree(campaign.half_done(), disk / "run")
        shutil.copytree(campaign.work / "reference", disk / "done")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        ends = [campaign.train(disk / "run"), campaign.run(functools.partial(export_it, disk / "done"))]
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        for name, end in zip(("run", "done"), ends, strict=True):
            failure = campaign.finishes(disk / name)
            if "Read-only file system" not in end.complaint:
                failure = f"no reason told: {end.code} {end.log[-600:]}"
            count(rows, failure, name)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    return [rows]


def small_files(campaign: Campaign) -> list[dict]:
    """A limit on the size of files, which TensorFlow's writers meet in another way than a full disk."""
    rows = {**row("files limited in size: one line, then the same bits"), "wrong": []}
    for limit in (500, 50_000):
        run_dir = campaign.fresh("limited")

        def limited(run_dir=run_dir, limit=limit):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            train_it(run_dir, *campaign.flags)

        end = campaign.run(functools.partial(_through_pipe, limited))
        failure = campaign.finishes(run_dir)
        if "File too large" not in end.complaint:
            failure = f"no reason told: {end.code} {end.log[-600:]}"
        print(f"files of at most {limit:,} bytes: {end.complaint}", flush=True)
        count(rows, failure, f"{limit:,} bytes")
    return [rows]


def _through_pipe(action) -> None:
    """Runs `action` in a child whose output goes through a pipe, which has no size, into this process' log."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(write, 1)
        os.dup2(write, 2)
        os.close(read)
        code = 0
        try:
            action()
        except SystemExit as end:
            code = 1
            print(end.code, file=sys.stderr)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(write)
    with open(read, "rb") as output:
        for chunk in output:
            os.write(1, chunk)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.exit(code if code >= 0 else 128 - code)


def clocks(campaign: Campaign) -> list[dict]:
    """Times of files and of the clock in the past and in the future; and a second process meanwhile."""
    jumps = {**row("clocks and file times years off: same bits"), "wrong": []}
    seconds = {**row("second process refused"), "wrong": []}
    for years in (-30, 30):
        run_dir = campaign.fresh("clock", campaign.half_done())
        for path in run_dir.rglob("*"):
            moment = time.time() + campaign.rng.uniform(-30, 30) * 3.15e7
            os.utime(path, (moment, moment))

        def jumped(run_dir=run_dir, years=years):
            real = time.time
            time.time = lambda: real() + years * 3.15e7
            train_it(run_dir, *campaign.flags)

        child = campaign.start(jumped)
        while not (run_dir / "lock").read_text().endswith(f" {child.pid}\n"):
            time.sleep(0.02)
        second = Child(campaign.training(run_dir), campaign.work / "second.log").end()
        refused = f"is in use by process {child.pid};" in second.complaint
        count(seconds, "" if refused else f"{second.code} {second.log[-300:]}", f"{years} years")
        end = child.end()
        count(jumps, campaign.finishes(run_dir) if not end.code else end.log[-600:], f"{years} years")
    return [jumps, seconds]


PARTS = (spoilt_files, kills, clocks, read_only, spoilt_runs, small_files, full_disks)


def row(what: str) -> dict:
    return {"what": what, "tried": 0, "held": 0}


def count(rows: dict, failure: str, case: str) -> None:
    rows["tried"] += 1
    rows["held"] += not failure
    rows["wrong"] += [f"{case}: {failure}"] if failure else []


def main(argv: list[str]) -> None:
    del argv
    work = pathlib.Path(FLAGS.work).absolute()
    campaign = Campaign(work, FLAGS.soak_seed, FLAGS.sample)
    done = json.loads((work / "parts.json").read_text()) if (work / "parts.json").exists() else {}
    for part in PARTS:
        if part.__name__ not in done and (part.__name__ in FLAGS.parts or not FLAGS.parts):
            print(f"-- {part.__name__}", flush=True)
            start = time.monotonic()
            done[part.__name__] = {"rows": part(campaign), "seconds": round(time.monotonic() - start)}
            durable.write_whole(work / "parts.json", json.dumps(done, indent=1))
    rows = [line for part in done.values() for line in part["rows"]]
    print("\n| what | tried | held |\n|---|---|---|")
    for line in rows:
        if line["tried"]:
            print(f"| {line['what']} | {line['tried']} | {line['held']} |")
        for place, number in sorted(line.get("where", {}).items()):
            print(f"| of these, {place} | {number} | |")
    print(f"\n{sum(part['seconds'] for part in done.values())} seconds")
    wrong = [case for line in rows for case in line.get("wrong", [])]
    sys.exit("\n".join(["error: not held:", *wrong]) if wrong else 0)


if __name__ == "__main__":
    app.run(main)
