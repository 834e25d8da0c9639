"""Distributed training on two simulated hosts, and what remains if one of them fails.

    python benchmarks/two_hosts.py

Each host is a network namespace with its own address, connected by a veth pair (Linux, root), and a directory. torchrun
runs in each. Without namespaces, two loopback addresses replace the hosts, and the link cannot be cut. A small ResNet
is trained on the synthetic dataset, because only startup and failure of processes are tested. Writes
benchmarks/results/two_hosts.md; fails if a check fails.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from circumstances import RESULTS, ROOT, circumstances

START = """
import sys
from cifar100.checkpoints import checkpoint
from cifar100.cli.main import main
from cifar100.model import ResNet
from cifar100.training import setup

setup.build_model = checkpoint.build_model = lambda _name, classes: ResNet((1, 1, 1, 1), classes, 8)
sys.exit(main(["train", *sys.argv[1:]]))
"""

FLAGS = ["--dataset=synthetic", "--lr=0.05", "--warmup-epochs=1", "--precision=fp32", "--device=cpu"]
FLAGS += ["--run-dir=run", "--no-report"]
DIST_TIMEOUT = 20
PORT = 29617


@dataclass
class Host:
    """A network namespace, or this machine under a loopback address; and a directory."""

    number: int
    address: str
    interface: str
    folder: Path
    namespace: str = ""
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def run(self, *words: str) -> subprocess.Popen[str]:
        """Start a command on this host."""
        inside = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        process = subprocess.Popen(
            [*inside, *words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": self.interface, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(process)
        return process

    def torchrun(self, master: Host, *words: str) -> subprocess.Popen[str]:
        """Start one of the two processes of a training."""
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={self.number}"]
        torchrun += ["--nproc-per-node=1", f"--master-addr={master.address}", f"--master-port={PORT}"]
        return self.run(*torchrun, "start.py", *FLAGS, f"--dist-timeout={DIST_TIMEOUT}", *words)

    def python(self, *words: str) -> subprocess.Popen[str]:
        return self.run(sys.executable, *words)

    def kill(self) -> None:
        """SIGKILL all processes started on this host, and their descendants."""
        for process in self.started:
            for pid in [*_descendants(process.pid), process.pid] if process.poll() is None else []:
                os.kill(pid, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    children = [int(word) for path in Path(f"/proc/{pid}/task").glob("*/children") for word in path.read_text().split()]
    return [*(deeper for child in children for deeper in _descendants(child)), *children]


def _ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


@contextmanager
def two_hosts(folder: Path) -> Iterator[tuple[Host, Host]]:
    """Two hosts, each in a subdirectory; they are removed afterwards."""
    for name in ("a", "b"):
        (folder / name).mkdir()
        (folder / name / "start.py").write_text(START)
    mark = f"cifar100-{os.getpid()}"
    with ExitStack() as cleaning:
        try:
            for name in ("a", "b"):
                _ip(f"netns add {mark}-{name}")
                cleaning.callback(subprocess.run, ["ip", "netns", "del", f"{mark}-{name}"], check=False)
                _ip(f"-n {mark}-{name} link set lo up")
            _ip(f"link add wire netns {mark}-a type veth peer name wire netns {mark}-b")
            for name, address in (("a", "10.77.0.1"), ("b", "10.77.0.2")):
                _ip(f"-n {mark}-{name} addr add {address}/24 dev wire")
                _ip(f"-n {mark}-{name} link set wire up")
            a = Host(0, "10.77.0.1", "wire", folder / "a", f"{mark}-a")
            b = Host(1, "10.77.0.2", "wire", folder / "b", f"{mark}-b")
        except (OSError, subprocess.CalledProcessError):
            a, b = (Host(i, f"127.0.0.{i + 1}", "lo", folder / name) for i, name in enumerate("ab"))
        cleaning.callback(lambda: [host.kill() for host in (a, b)])
        yield a, b


def epochs_done(host: Host) -> int:
    path = host.folder / "run" / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def rows(host: Host) -> list[dict[str, float]]:
    return [json.loads(line) for line in (host.folder / "run" / "metrics.jsonl").read_text().splitlines()]


def weights(host: Host) -> dict[str, torch.Tensor]:
    """The weights of last.pth; `load_checkpoint` refuses those of a narrow network."""
    return torch.load(host.folder / "run" / "last.pth", weights_only=True)["weights"]


def finished(*processes: subprocess.Popen[str]) -> list[str]:
    """The output of processes, which must succeed."""
    outputs = [process.communicate(timeout=900)[0] for process in processes]
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output
    return outputs


def shorten(output: str) -> str:
    """The output of cifar100, and torchrun's root cause."""
    keep = r"cifar100[ :]|Device |  +\d process|Epoch|Final|Resumed|Not bit-id|Stopped|Root Cause|  (rank|exitcode) +:"
    lines = [line for line in output.splitlines() if re.match(keep, line)]
    root = next((i for i, line in enumerate(lines) if line.startswith("Root Cause")), len(lines))
    lines = [line for line in lines[:root] if not line.startswith("  rank") and "exitcode" not in line] + lines[root:]
    return "\n".join(line if len(line) < 260 else line[:257] + "…" for line in lines)


class Report:
    """The report in Markdown, which is also printed."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        print(text, flush=True)
        self.lines.append(text)

    def output(self, of: str, output: str) -> None:
        self.say(f"\n{of}:\n\n```\n{shorten(output)}\n```")


def together(a: Host, b: Host, one: Host, report: Report) -> None:
    """Training across the hosts gives the same result as two processes on one host."""
    (alone,) = finished(
        one.python(
            *("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "start.py", *FLAGS, "--epochs=3")
        )
    )
    outputs = finished(*(host.torchrun(a, "--epochs=3") for host in (a, b)))
    assert "2 processes on 2 nodes, gloo" in outputs[0]
    assert "2 processes on 1 node, gloo" in alone
    assert not (b.folder / "run").exists(), "process 0 alone writes"
    there, here = weights(a), weights(one)
    furthest = max(float((there[name] - here[name]).abs().max()) for name in here)
    assert furthest < 1e-4
    losses = [f"{row['train_loss']:.4f} and {row['loss']:.4f}" for row in rows(a)]
    report.say("\n## A training across two hosts\n")
    report.say(f"Its weights after three epochs are at most {furthest:.1g} off those of two processes on one host.")
    report.say(f"Train and test loss of its epochs: {'; '.join(losses)}.")
    report.output("Host a", outputs[0])
    report.output("Host b says nothing", outputs[1])


def lose(a: Host, b: Host, report: Report, *, what: str, survivor: Host) -> None:
    """One host fails during training; the other one exits within the time limit."""
    shutil.rmtree(a.folder / "run")
    processes = [host.torchrun(a, "--epochs=500", "--save-seconds=0", "--stop-after=400") for host in (a, b)]
    deadline = time.monotonic() + 600
    while epochs_done(a) < 2:
        assert all(process.poll() is None for process in processes), [p.communicate()[0] for p in processes]
        assert time.monotonic() < deadline
        time.sleep(0.2)
    lost = b if survivor is a else a
    if what == "the cable is cut":
        _ip(f"-n {b.namespace} link set wire down")
    else:
        lost.kill()
    began = time.monotonic()
    output, _ = processes[survivor.number].communicate(timeout=300)
    seconds = time.monotonic() - began
    if what == "the cable is cut":
        processes[lost.number].communicate(timeout=300)
        _ip(f"-n {b.namespace} link set wire up")
    else:
        processes[lost.number].communicate(timeout=60)
    assert processes[survivor.number].returncode != 0, output
    assert seconds < (DIST_TIMEOUT + 20 if what == "the cable is cut" else DIST_TIMEOUT - 5), seconds
    report.say(f"\n## While they train, {what}\n")
    report.say(f"The other host's torchrun ended {seconds:.1f} s later.")
    report.output(f"Host {'ab'[survivor.number]}, which is left", output)


def resume(a: Host, report: Report) -> None:
    """Resume the run from its last checkpoint, on one host, in one process."""
    stands = epochs_done(a)
    (output,) = finished(a.python("start.py", "--resume", "--run-dir=run", f"--stop-after={stands + 2}"))
    assert "Not bit-identical" in output
    assert epochs_done(a) == stands + 2
    report.say("\n## Resumed on host a alone\n")
    report.say(f"`cifar100 train --resume --stop-after {stands + 2}`, without torchrun, for two epochs more.")
    report.output("Host a", output)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS / "two_hosts.md")
    args = parser.parse_args()
    report = Report()
    with tempfile.TemporaryDirectory() as scratch, two_hosts(Path(scratch)) as (a, b):
        one = Host(0, a.address, a.interface, Path(scratch) / "one", a.namespace)
        one.folder.mkdir()
        (one.folder / "start.py").write_text(START)
        report.say("# Two hosts\n")
        kind = "two network namespaces and a virtual cable between them" if a.namespace else "two loopback addresses"
        report.say(f"`{circumstances()['command']}`: {kind}, {a.address} and {b.address}; a process on each, gloo.")
        report.say(f"A ResNet of 83,852 weights on the synthetic set, batches of 128, `--dist-timeout {DIST_TIMEOUT}`.")
        together(a, b, one, report)
        lose(a, b, report, what="host b is killed", survivor=a)
        resume(a, report)
        lose(a, b, report, what="host a is killed", survivor=b)
        if a.namespace:
            lose(a, b, report, what="the cable is cut", survivor=a)
            resume(a, report)
    report.say("\n## Circumstances\n\n| | |\n| --- | --- |")
    report.say("\n".join(f"| {name} | {value} |" for name, value in circumstances().items()))
    text = "\n".join(report.lines) + "\n"
    args.out.write_text(re.sub(r"/\S*/(?=python|start\.py)", "", text))


if __name__ == "__main__":
    main()
