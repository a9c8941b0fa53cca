"""Every paper on a pretended CUDA device: no tensor is left on the CPU, and no step waits."""
from types import SimpleNamespace

import pytest
import torch
from claimed_device import pretended_cuda
from conftest import PAPERS, load, tiny

pytestmark = [pytest.mark.usefixtures("small_data"), pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 14),
    reason="older ones lose what the pretended device notes on a storage")]


def waits_of_steps(train, flags, monkeypatch) -> dict[int, list[str]]:
    """Of a run on the pretended device: for each step the places where Python waited."""
    seed, waits_of = torch.manual_seed, {}
    with pretended_cuda() as waits, monkeypatch.context() as patch:

        def begin(step):  # as every step does
            waits_of[step] = len(waits)
            return seed(step)

        patch.setattr(torch, "manual_seed", begin)
        patch.setattr(train, "time", SimpleNamespace(monotonic=lambda: 0.0))  # no line is due
        train.train(train.parse_args(flags))
        ends = [*waits_of.values(), len(waits)]
        return {step: waits[ends[i]:ends[i + 1]] for i, step in enumerate(waits_of)}


@pytest.mark.parametrize("paper", PAPERS)
def test_a_run_on_cuda(paper, tmp_path, monkeypatch):
    train, sample, out = load(paper, "train"), load(paper, "sample"), tmp_path / "run"
    flags = tiny(paper, out, "--device", "cuda", "--steps", 5, "--log-every", 3,
                 "--sample-every", 100, "--save-every", 100)
    waits = waits_of_steps(train, flags, monkeypatch)
    assert waits[2] == waits[4] == []  # 1 and 5 draw, 3 logs
    assert waits[1] and waits[3] and waits[5]
    resumed = waits_of_steps(train, ["--resume", "--steps=8", f"--out={out}"], monkeypatch)
    assert resumed.keys() == {0, 6, 7, 8} and resumed[7] == []
    with pretended_cuda():
        G, _ = sample.load_generator(out / "ckpt.pt", "cuda")
        assert {p.device.type for p in G.parameters()} == {"cuda"}
        flags = ["--ckpt", str(out / "ckpt.pt"), "--device=cuda", "--frames=2"]
        sample.main([*flags, "--out", str(tmp_path / "figures")])
        sample.main([*flags, "--n=3", "--each", str(tmp_path / "each")])
    assert len(list((tmp_path / "each").glob("*.png"))) == 3


@pytest.mark.parametrize("name, fault", [
    ("sample_z", lambda n, z_dim, device="cpu": torch.rand(n, z_dim)),
    ("d_loss", lambda real, fake: (real * torch.ones(4)).mean() + fake.mean()),
    ("sample", lambda G, z: G(z.cpu()))])
def test_a_tensor_on_the_cpu_is_found(name, fault, tmp_path, monkeypatch):
    train = load("dcgan", "train")
    monkeypatch.setattr(train, name, fault)
    with pytest.raises(RuntimeError, match="two devices"):
        waits_of_steps(train, tiny("dcgan", tmp_path, "--device", "cuda"), monkeypatch)


@pytest.mark.parametrize("fault, found", [
    (lambda fake: fake.mean() * fake.std().item(), "_local_scalar_dense"),
    (lambda fake: fake.mean() if fake.max() > 0 else fake.sum(), "_local_scalar_dense"),
    (lambda fake: fake[fake > 0].sum(), "index"),
    (lambda fake: fake.cpu().mean(), "copy to cpu"),
    (lambda fake: (fake * torch.tensor([1.0, 2, 3, 4], device=fake.device)).mean(), "torch.tensor"),
    (lambda fake: fake.sum() / len(fake.tolist()), "tolist")])
def test_a_wait_is_found(fault, found, tmp_path, monkeypatch):
    train = load("dcgan", "train")
    monkeypatch.setattr(train, "g_loss", fault)
    flags = tiny("dcgan", tmp_path, "--device", "cuda", "--log-every", 100, "--save-every", 100,
                 "--sample-every", 100, "--steps", 3)
    assert any(found in wait for wait in waits_of_steps(train, flags, monkeypatch)[2])
