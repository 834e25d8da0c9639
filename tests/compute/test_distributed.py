"""Distributed training under torchrun: equivalent to training in one process, with a single log.

`START` is a script that trains like `torchrun -m cifar100 train`, but a network with under 1 % of the FLOPs of
resnet18, and injects a fault into one rank at one step. Runs that are compared with a single process use fp32.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, assert_one_sentence
from torch import Tensor, nn
from torch.nn import functional as F

from cifar100.augmentation.loader import TrainLoader
from cifar100.checkpoints.checkpoint import Checkpoint, load_checkpoint
from cifar100.compute import distributed
from cifar100.compute.distributed import DistContext
from cifar100.config import Config
from cifar100.dataset import load_dataset
from cifar100.model import ResNet
from cifar100.optim.build import build_optimizer
from cifar100.optim.schedule import lr_at_step
from cifar100.support.errors import RunFailed, UserError
from cifar100.train import train
from cifar100.training.run_dir import RunDir

START = """
import atexit, os, signal, sys, time
import torch.distributed as dist
from cifar100.checkpoints import checkpoint
from cifar100.cli.main import main
from cifar100.training import setup
from cifar100.training.step import TrainStep
from narrow_cifar100 import narrow_training

narrow_training()
what, rank, at = os.environ.get("FAULT", "nothing:0:-1").split(":")
call, load = TrainStep.__call__, setup.load_dataset
if what == "SIGTERM, slow disk":
    save = checkpoint.Checkpoint.save
    checkpoint.Checkpoint.save = lambda *words: (time.sleep(3), save(*words))

def step(self, images, labels, *, learning_rate, step_index):
    if step_index == int(at) and os.environ.get("RANK", "0") == rank:
        if what == "SIGKILL": os.kill(os.getpid(), signal.SIGKILL)
        if what in ("SIGTERM", "SIGTERM, slow disk"): os.kill(os.getpid(), signal.SIGTERM)
        if what == "nan": images = images * float("nan")
        if what == "memory": raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        if what == "hang":
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            time.sleep(600)
    call(self, images, labels, learning_rate=learning_rate, step_index=step_index)

def load_dataset(config, **options):
    began = time.monotonic()
    if what == "foreign" and os.environ["RANK"] == rank:
        return load(config.replace(dataset="synthetic"), **options)
    if what == "no data" and os.environ["RANK"] == rank:
        os.environ["CIFAR100_DATA_DIR"] = "nowhere"
    if what == "slow data":
        time.sleep(1)
    dataset = load(config, **options)
    if what == "slow data":
        open(f"loaded_by_{os.environ['RANK']}", "w").write(f"{began} {time.monotonic()}")
    return dataset

TrainStep.__call__, setup.load_dataset = step, load_dataset
atexit.register(lambda: dist.is_initialized() and print("process group not destroyed", file=sys.stderr))
sys.exit(main(["train", *sys.argv[1:]]))
"""

PYTHONPATH = os.pathsep.join([str(ROOT), str(ROOT / "tests")])

SHORT = {"epochs": 2, "batch_size": 64, "warmup_epochs": 1, "lr": 0.02, "precision": "fp32", "device": "cpu"}

GENTLE = {"epochs": 1, "lr": 0.002}
"""Batch norm amplifies rounding at this batch size: in an epoch at a learning rate of 0.02, fp32 deviates from float64
by 10 % of the total change of the weights."""

WARNING_OF_TORCHRUN = (
    "*****************************************Setting OMP_NUM_THREADS environment variable for each process to be 1 in "
    "default, to avoid your system being overloaded, please further tune the variable for optimal performance in your "
    "application as needed. *****************************************"
)


class Torchrun:
    """Starts training runs in a directory, on the tiny dataset."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder = folder
        self.data = data
        (folder / "start.py").write_text(START)

    def start(
        self, count: int, *words: object, fault: str = "", env: dict[str, str] | None = None, **settings: Any
    ) -> subprocess.Popen[str]:
        """Start `count` processes under torchrun, or a single process without torchrun if `count` is 0."""
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in (SHORT | settings).items()]
        flags = [] if "--resume" in words else [*flags, "--no-report"]
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)] if count else []
        environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "CIFAR100_DATA_DIR": str(self.data)}
        environment |= {"FAULT": fault} if fault else {}
        if env is not None:
            environment.pop("OMP_NUM_THREADS", None)
            environment |= env
        return subprocess.Popen(
            [sys.executable, *launcher, "start.py", *flags, *map(str, words)],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, count: int, *words: object, **options: Any) -> subprocess.CompletedProcess[str]:
        process = self.start(count, *words, **options)
        try:
            out, errors = process.communicate(timeout=400)
        finally:
            process.terminate()  # after a timeout: torchrun then ends its workers too
        return subprocess.CompletedProcess(process.args, process.returncode, out, errors)


@pytest.fixture
def torchrun(tmp_path: Path, tiny_data: Path, narrow: None) -> Torchrun:
    return Torchrun(tmp_path, tiny_data)


def last(folder: Path) -> Checkpoint:
    return load_checkpoint(folder / "last.pth")


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def log_of(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted(folder.glob("training_log_*.txt")))


def our_lines(errors: str) -> list[str]:
    """The lines that `cifar100` itself wrote to stderr."""
    return [line for line in errors.splitlines() if line.startswith("cifar100: ")]


def first_exit_code(errors: str) -> str:
    """The exit code of the process that torchrun reports as the root cause."""
    return errors.rpartition("Root Cause")[2].partition("exitcode  : ")[2].split()[0]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """One thread, as torchrun gives each process, so that the reference rounds identically."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fresh_model() -> nn.Module:
    torch.manual_seed(0)
    return ResNet((1, 1, 1, 1), 100, 8)


def reference(config: Config, world: int) -> tuple[dict[str, Tensor], list[float]]:
    """Emulate `world` ranks in one process: each rank's shard has its own batch norm statistics, and the gradients are
    averaged over all images. Returns the final weights, with the running statistics of rank 0, and each epoch's mean
    loss."""
    dataset = load_dataset(config)
    loader = TrainLoader(
        dataset.train, config.augment, batch_size=config.optim.batch_size, seed=0, device=torch.device("cpu")
    )
    model = fresh_model()
    optimizer = build_optimizer(model, config.optim)
    replicas = [copy.deepcopy(model).train() for _ in range(world)]
    losses = []
    for epoch in range(config.optim.epochs):
        total = 0.0
        for step, (images, labels) in enumerate(loader.epoch(epoch)):
            for group in optimizer.param_groups:
                group["lr"] = lr_at_step(epoch * len(loader) + step, len(loader), config.optim)
            optimizer.zero_grad()
            places = np.array_split(np.arange(len(labels)), world)
            for replica, mine in zip(replicas, places, strict=True):
                if len(mine) == 0:
                    continue
                replica.load_state_dict(dict(model.named_parameters()), strict=False)
                replica.zero_grad()
                loss = F.cross_entropy(replica(images[mine]), labels[mine], label_smoothing=0.1, reduction="sum")
                (loss / len(labels)).backward()
                total += loss.item()
                for parameter, copied in zip(model.parameters(), replica.parameters(), strict=True):
                    assert copied.grad is not None
                    parameter.grad = copied.grad.clone() if parameter.grad is None else parameter.grad + copied.grad
            optimizer.step()
        losses.append(total / len(loader.labels))
    return {**dict(replicas[0].named_buffers()), **dict(model.named_parameters())}, losses


def assert_follows(folder: Path, config: Config, world: int) -> None:
    """Assert that the final weights of a run deviate from the reference by less than 1 % of their total change."""
    weights, losses = reference(config, world)
    found, start = last(folder).weights, dict(fresh_model().named_parameters())
    assert found.keys() == weights.keys()
    apart, way = (
        torch.cat([(one[name] - other[name]).detach().flatten() for name in start]).norm()
        for one, other in ((found, weights), (weights, start))
    )
    assert apart < 0.01 * way
    for name in weights.keys() - start.keys():
        torch.testing.assert_close(found[name], weights[name], rtol=1e-4, atol=1e-5)
    assert [row["train_loss"] for row in rows(folder)] == pytest.approx(losses, rel=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 64])
def test_shards_partition_the_range(size: int, count: int) -> None:
    parts = [DistContext(rank=rank, size=size).shard(10, 10 + count) for rank in range(size)]
    assert [place for part in parts for place in range(part.start, part.stop)] == list(range(10, 10 + count))
    lengths = [part.stop - part.start for part in parts]
    assert lengths == sorted(lengths, reverse=True)
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.slow
def test_two_ranks_train_like_one_process_with_averaged_gradients(torchrun: Torchrun, tmp_path: Path) -> None:
    """Three steps of 64 images and one of 8; also one log, metrics over all images, and one set of files."""
    result = torchrun(2, run_dir="run", **GENTLE)
    assert result.returncode == 0, result.stderr
    assert result.stderr.replace("\n", "") in ("", WARNING_OF_TORCHRUN)
    assert result.stdout.count("Epoch   1/1") == 1
    assert "2 processes on 1 node, gloo" in result.stdout
    assert len(list((tmp_path / "run").glob("training_log_*.txt"))) == 1
    config = Config().replace(**(SHORT | GENTLE | {"data_dir": torchrun.data}))
    assert_follows(tmp_path / "run", config, 2)


@pytest.mark.slow
def test_mixed_images_are_mixed_across_processes(torchrun: Torchrun, tmp_path: Path) -> None:
    """The last image of a rank's shard is mixed with the first image of the next rank's."""
    mixed = GENTLE | {"cutmix_probability": 0.5, "mixup_probability": 0.3}
    result = torchrun(2, run_dir="run", **mixed)
    assert result.returncode == 0, result.stderr
    assert_follows(tmp_path / "run", Config().replace(**(SHORT | mixed | {"data_dir": torchrun.data})), 2)


@pytest.mark.slow
@pytest.mark.parametrize(("count", "batch_size"), [(3, 64), (3, 33), (2, 199)])
def test_batches_that_are_not_divisible_by_the_number_of_ranks(
    torchrun: Torchrun, tmp_path: Path, count: int, batch_size: int
) -> None:
    """The last batch has 8, 2 or 1 images: with batch size 33 one of three ranks has none, with 199 one of two."""
    result = torchrun(count, run_dir="run", **GENTLE | {"batch_size": batch_size})
    assert result.returncode == 0, result.stderr
    config = Config().replace(**(SHORT | GENTLE | {"batch_size": batch_size, "data_dir": torchrun.data}))
    assert_follows(tmp_path / "run", config, count)


EVALUATE = """
import sys, torch
from pathlib import Path
from cifar100.config import Config
from cifar100.dataset import load_dataset
from cifar100.compute.device import select_device
from cifar100.evaluation.evaluate import evaluate_model
from cifar100.model import ResNet
from cifar100.compute.distributed import init_distributed
import numpy as np

with init_distributed() as context:
    compute, dataset = select_device("cpu", "fp32"), load_dataset()
    context.init_groups(compute.device, 60)
    torch.manual_seed(context.rank)
    model = compute.prepare(ResNet((1, 1, 1, 1), 100, 8))
    for buffer in model.buffers():
        buffer.add_(context.rank)
    context.wrap_ddp(model)
    context.broadcast_buffers(model)
    for count in (100, 7, 2, 1):
        split = dataset.test.take(np.arange(0, 100, 100 // count)[:count])
        evaluation = evaluate_model(
            model, split, name="test", dataset=dataset, config=Config().augment, compute=compute, dist=context
        )
        assert evaluation.images == count
        np.savez(f"{sys.argv[1]}_{context.rank}_{count}", logits=evaluation.logits, loss=evaluation.loss)
"""


@pytest.mark.slow
def test_evaluation_counts_each_image_once_on_every_rank(torchrun: Torchrun, tmp_path: Path) -> None:
    """Also with fewer images than ranks; all ranks evaluate the model of rank 0, including its running statistics."""
    (tmp_path / "start.py").write_text(EVALUATE)
    for process in (torchrun.start(0, "one", "--resume"), torchrun.start(3, "three", "--resume")):
        assert process.wait(timeout=400) == 0
    for count in (100, 7, 2, 1):
        with np.load(tmp_path / f"one_0_{count}.npz") as alone:
            for rank in range(3):
                with np.load(tmp_path / f"three_{rank}_{count}.npz") as shared:
                    np.testing.assert_allclose(shared["logits"], alone["logits"], rtol=1e-4, atol=1e-5)
                    np.testing.assert_allclose(shared["loss"], alone["loss"], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_a_distributed_run_stopped_in_mid_epoch_resumes_exactly(torchrun: Torchrun, tmp_path: Path, count: int) -> None:
    """The signal is sent to one process; all stop at the same step."""
    whole = torchrun(count, run_dir="whole")
    assert whole.returncode == 0, whole.stderr
    stopped = torchrun(count, run_dir="run", fault=f"SIGTERM:{count - 1}:5")
    assert first_exit_code(stopped.stderr) == "130"
    assert stopped.stdout.count("Stopped by SIGTERM at epoch 2, step 2. Saved") == 1
    loop = last(tmp_path / "run").loop
    assert (loop["epoch"], loop["step"], loop["seen"]) == (1, 2, 128), "sums must be over the images of all ranks"
    resumed = torchrun(count, "--resume", "--run-dir=run")
    assert resumed.returncode == 0, resumed.stderr
    assert "bit-identical" not in resumed.stdout
    expected, found = last(tmp_path / "whole").weights, last(tmp_path / "run").weights
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    for before, after in zip(rows(tmp_path / "whole"), rows(tmp_path / "run"), strict=True):
        assert after["train_loss"] == before["train_loss"]
        assert (after["train_top1"], after["loss"]) == (before["train_top1"], before["loss"])


@pytest.mark.slow
def test_ranks_wait_while_rank_0_saves(torchrun: Torchrun, tmp_path: Path) -> None:
    """torchrun terminates the other processes shortly after the first one exits."""
    stopped = torchrun(2, run_dir="run", fault="SIGTERM, slow disk:1:2")
    assert stopped.stdout.count("Stopped by SIGTERM at epoch 1, step 3. Saved") == 1
    assert last(tmp_path / "run").loop["step"] == 3


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(2, 0), (0, 2), (2, 3)])
def test_another_number_of_processes_resumes_and_is_logged(
    torchrun: Torchrun, tmp_path: Path, before: int, after: int
) -> None:
    assert "Saved" in torchrun(before, run_dir="run", fault="SIGTERM:0:5").stdout
    resumed = torchrun(after, "--resume", "--run-dir=run")
    assert resumed.returncode == 0, resumed.stderr
    assert "Not bit-identical to an uninterrupted run: on " in resumed.stdout
    assert f"{max(before, after)} processes on 1 node, gloo" in resumed.stdout
    assert [row["epoch"] for row in rows(tmp_path / "run")] == [1, 2]
    config = Config().replace(**(SHORT | {"data_dir": torchrun.data}))
    _, losses = reference(config, 1)
    assert rows(tmp_path / "run")[1]["train_loss"] == pytest.approx(losses[1], rel=0.02), "mean over the whole epoch"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_torchrun_saves_and_ends_all_ranks(
    torchrun: Torchrun, tmp_path: Path, number: signal.Signals
) -> None:
    """Also if each process receives the signal twice, as when a whole job is stopped."""
    process = torchrun.start(2, run_dir="run", epochs=500)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Epoch   2/500"):
            break
    for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(child), number)
    process.send_signal(number)
    out, errors = process.communicate(timeout=600)
    assert out.count(f"Stopped by {number.name}") == 1, errors
    assert our_lines(errors) == []
    assert last(tmp_path / "run").loop["epoch"] >= 2


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["SIGKILL:0:5", "SIGKILL:1:5", "hang:1:5", "memory:1:5"])
def test_a_failed_rank_ends_all_and_the_run_can_be_resumed(torchrun: Torchrun, fault: str) -> None:
    """A rank is killed, hangs for longer than --dist-timeout or runs out of memory: torchrun reports the rank."""
    # seconds: only the hanging rank exceeds it, even on busy cores
    timeout = 10 if fault.startswith("hang") else 100
    process = torchrun.start(2, run_dir="run", fault=fault, epochs=500, save_seconds=0, dist_timeout=timeout)
    _, errors = process.communicate(timeout=400)
    assert process.returncode == 1
    what, rank, _ = fault.split(":")
    # if a rank hangs, the other one times out and fails; an error of the second rank may be reported with the first
    failed_rank, code = ("0", "1") if what == "hang" else (rank, "-9" if what == "SIGKILL" else "1")
    assert re.search(rf"rank +: {failed_rank} .*\n +exitcode +: {code} ", errors)
    assert ("Out of memory at 64 images per step" in errors) == fault.startswith("memory")
    assert torchrun(2, "--resume", "--run-dir=run", "--stop-after=2").returncode == 0


@pytest.mark.slow
def test_a_nonfinite_loss_on_one_rank_ends_all_ranks(torchrun: Torchrun, tmp_path: Path) -> None:
    result = torchrun(2, run_dir="run", fault="nan:1:5", save_seconds=0)
    assert result.returncode == 1
    (message,) = our_lines(result.stderr)
    assert_one_sentence(message, "at step 6 of the run (epoch 2, step 2)", "The last good checkpoint is kept")
    assert message.removeprefix("cifar100: ") in log_of(tmp_path / "run")
    assert last(tmp_path / "run").is_finite()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "words", "message"),
    [
        ("", ["--batch-size=1"], "--batch-size is 1, and each of the 2 processes needs an image"),
        ("", ["--sync-bn"], "--sync-bn is for GPUs"),
        ("", ["--data-dir=nowhere"], "--data-dir is nowhere, which does not exist"),
        ("no data:1:0", [], "$CIFAR100_DATA_DIR is nowhere, which does not exist"),
        ("foreign:1:0", [], "dataset is"),
        ("", ["--resume", "--run-dir=none"], "nothing to resume from in none"),
        ("", ["--run-dir=locked"], "Another run is using"),
    ],
)
def test_a_user_error_is_reported_once_and_ends_all_ranks(
    torchrun: Torchrun, tmp_path: Path, fault: str, words: list[str], message: str
) -> None:
    with RunDir(tmp_path / "locked"):
        result = torchrun(2, *words, fault=fault)
        if first_exit_code(result.stderr) == "-6":  # a rank rarely aborts at exit, for an unknown reason (docs/log.md)
            result = torchrun(2, *words, fault=fault)
    (line,) = our_lines(result.stderr)
    assert_one_sentence(line, message)
    assert first_exit_code(result.stderr) == "2"
    assert "process group not destroyed" not in result.stderr, (
        "a rank may abort at exit if its process group still exists"
    )
    assert result.stdout == ""
    assert 'start.py", line' not in result.stderr, "a traceback was printed"


@pytest.mark.slow
def test_other_ranks_wait_until_rank_0_has_the_data(torchrun: Torchrun, tmp_path: Path) -> None:
    """Rank 0 may have to download the dataset; it does so once, and logs it."""
    result = torchrun(3, run_dir="run", epochs=1, warmup_epochs=0, fault="slow data:0:0")
    assert result.returncode == 0, result.stderr
    times = [[float(word) for word in (tmp_path / f"loaded_by_{rank}").read_text().split()] for rank in range(3)]
    assert min(began for began, _ in times[1:]) >= times[0][1]


@pytest.mark.slow
def test_a_second_run_archives_the_first_once(torchrun: Torchrun, tmp_path: Path) -> None:
    for _ in range(2):
        assert torchrun(2, run_dir="run", stop_after=1).returncode == 0
    (moved,) = (tmp_path / "run" / "previous").iterdir()
    assert last(moved).loop["epoch"] == last(tmp_path / "run").loop["epoch"] == 1


@pytest.mark.slow
def test_two_hosts(tmp_path: Path) -> None:
    """Two network namespaces if permitted, else two addresses: the same result as on one host; either host killed;
    the connection lost."""
    script = [sys.executable, str(ROOT / "benchmarks" / "two_hosts.py"), "--out", str(tmp_path / "report.md")]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(script, env=env, capture_output=True, text=True, timeout=3000, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    report = (tmp_path / "report.md").read_text()
    assert "Not bit-identical" in report


@pytest.mark.slow
def test_the_torchrun_commands_of_the_documentation(torchrun: Torchrun, tmp_path: Path) -> None:
    """As a module, as a script inside cifar100/ and as the installed command; with the real resnet18."""
    inside = tmp_path / "clone" / "cifar100"
    shutil.copytree(ROOT / "cifar100", inside, ignore=shutil.ignore_patterns("__pycache__", "data", "logs"))
    installed = tmp_path / "cifar100"
    installed.write_text(f"#!{sys.executable}\nimport sys\nfrom cifar100.cli.main import main\nsys.exit(main())\n")
    installed.chmod(0o755)
    flags = ["--epochs=1", "--warmup-epochs=0", "--batch-size=100", "--lr=0.01", "--train-sizes=16", "--no-report"]
    for folder, words in (
        (inside.parent, ["-m", "cifar100", "train"]),
        (inside, ["train.py"]),
        (tmp_path, ["--no-python", str(installed), "train"]),
    ):
        result = subprocess.run(
            [*(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"), *words, *flags],
            cwd=folder,
            env={**os.environ, "CIFAR100_DATA_DIR": str(torchrun.data), "PYTHONPATH": str(inside.parent)},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("Final     test top-1") == 1
        assert (folder / "logs" / "cifar100" / "best_model.pth").exists()


def test_one_process_needs_no_collectives() -> None:
    alone = DistContext()
    model = nn.Linear(2, 2)
    assert alone.wrap_ddp(model) is model
    assert alone.gather("mine") == ["mine"]
    assert alone.all_reduce_max(1, 0, 15) == (1, 0, 15)
    assert alone.run_on_main(lambda: 5) == 5
    assert alone.shard(3, 9) == slice(3, 9)
    with pytest.raises(ZeroDivisionError), alone.collective_errors():
        _ = 1 / 0


def test_torchrun_with_one_process_trains_without_ddp(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")
    with distributed.init_distributed() as alone:
        assert alone.size == 1
    assert not torch.distributed.is_initialized()


def test_gpus_use_nccl_and_may_use_sync_bn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: the calls to PyTorch are recorded."""
    made: list[str] = []
    wrapped: list[dict[str, Any]] = []

    def wrap(model: nn.Module, *, forward_sync_buffers: bool = True, **options: Any) -> nn.Module:
        wrapped.append({"synchronized": forward_sync_buffers, **options})
        return model

    def new_group(*, backend: str, timeout: Any) -> str:
        made.append(f"{backend} {timeout.total_seconds():.0f}")
        return backend

    monkeypatch.setattr(distributed.dist, "new_group", new_group)
    monkeypatch.setattr(distributed, "DistributedDataParallel", wrap)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: made.append(str(device)))
    two = DistContext(size=2, local_rank=1)
    two.init_groups(torch.device("cuda", 1), 120)
    assert made == ["cuda:1", "gloo 120", "nccl 120"]
    assert str(two) == "2 processes on 1 node, nccl"
    plain = ResNet((1, 1, 1, 1), 100, 8)
    weights = list(plain.parameters())
    two.wrap_ddp(plain)
    assert not [module for module in plain.modules() if isinstance(module, nn.SyncBatchNorm)]
    two.wrap_ddp(plain, sync_bn=True)
    assert isinstance(plain.bn1, nn.SyncBatchNorm)
    assert list(map(id, plain.parameters())) == list(map(id, weights)), "the optimizer must hold the same parameters"
    two.wrap_ddp(plain, compiled=True)
    settings = {"process_group": "nccl", "synchronized": False, "gradient_as_bucket_view": True}
    assert wrapped == [settings | {"static_graph": static} for static in (True, True, False)]


def test_gpus_sync_after_every_16th_step_and_cpus_after_each() -> None:
    steps = range(40)
    assert [step for step in steps if DistContext(size=2, backend="nccl").syncs_after(step)] == [15, 31]
    assert all(DistContext(size=2, backend="gloo").syncs_after(step) for step in steps)
    assert all(DistContext().syncs_after(step) for step in steps)


def test_between_two_syncs_there_is_no_collective(
    tiny_data: Path, tmp_path: Path, narrow: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each epoch of four steps has one reduction at its sync point and two at its end."""
    calls, reduce = [], DistContext.all_reduce_max
    monkeypatch.setattr(DistContext, "syncs_after", lambda _self, step: step in (2, 5))
    monkeypatch.setattr(DistContext, "all_reduce_max", lambda self, *v: calls.append(len(v)) or reduce(self, *v))
    config = Config().replace(**SHORT, report=False, data_dir=tiny_data, run_dir=tmp_path / "run")
    assert len(train(config).history) == 2
    assert calls == [3, 1, 1, 3, 1, 1]


def test_an_incomplete_torchrun_environment_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with suppress(KeyError):
        monkeypatch.delenv("MASTER_ADDR")
    with pytest.raises(RunFailed, match=r"MASTER_ADDR.* torchrun") as raised, distributed.init_distributed():
        pass
    assert raised.value.code == "dist.init"


def test_a_batch_size_below_the_number_of_ranks_is_refused(tiny_data: Path) -> None:
    split = load_dataset(Config().replace(data_dir=tiny_data)).train
    with pytest.raises(UserError, match="--batch-size") as raised:
        TrainLoader(split, Config().augment, batch_size=2, seed=0, device=torch.device("cpu"), dist=DistContext(size=3))
    assert raised.value.code == "config.batch_size"
