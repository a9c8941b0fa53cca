"""Does it learn? Judges samples by a classifier trained on the spot on the run's data. By hand.

    python tests/quality.py gan                          runs/gan/ckpt.pt
    python tests/quality.py gan dcgan                    several papers, one table
    python tests/quality.py gan --ckpt elsewhere/ckpt.pt --data mnist --data-root path

Needs data with classes: a built-in set, a torchvision one, or a folder of class folders. Protocol:
- classifier: a small CNN, trained on the training images at the run's size (of a folder: on five
  sixths of it); its accuracy is that on the held-out images;
- Frechet distance: |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of the means and covariances of its
  64 penultimate features, between n samples and n training images. It is no FID, and comparable
  only within a line: with "held out", the same distance for real images that the classifier and G
  have not seen, which a perfect G would score; and with "untrained", for G as the run began, from
  the checkpoint that train.py writes before its first step;
- classes: those that at least 2 % of the samples belong to, of those with as many real images;
- confidence: the mean probability of the most probable class;
- asked: of a paper whose generate() takes y, the share of samples of the class asked for.

Exit code 1 if a target is missed: all classes, confidence > 0.8, at most a quarter of the untrained
G's distance.
"""
import argparse
import contextlib
import importlib.util
import inspect
import io
import signal
import sys
import time
from argparse import Namespace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(ROOT))
from common.data import NAMES, Data, fail, load_labelled  # noqa: E402

PAPERS = sorted(path.parent.name for path in ROOT.glob("*/sample.py"))
MIN_SAMPLES = 1000  # fewer than 64 features need for a covariance worth the name
COVERED = 0.02      # the share of the samples from which on a class counts as there
STEPS = 800         # of the classifier, with batches of 128


def load(paper: str, module: str) -> ModuleType:
    """A folder's module by path; `model` is forgotten, or the next folder would get this one's."""
    sys.modules.pop("model", None)
    path = ROOT / paper / f"{module}.py"
    spec = importlib.util.spec_from_file_location(f"{paper}_{module}", path)
    loaded = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(loaded)
    finally:
        sys.path.remove(str(path.parent))
        sys.modules.pop("model", None)
    return loaded


# The judge

class Classifier(nn.Module):
    """Image (n, c, size, size) -> logits (n, n_classes), from features (n, 64)."""

    def __init__(self, size: int, channels: int, n_classes: int):
        super().__init__()
        layers, c = [], channels
        while size > 4 or not layers:  # 28: 14, 7, 4
            c_in, c, size = c, min(128, max(32, 2 * c)) if layers else 32, (size + 1) // 2
            layers += [nn.Conv2d(c_in, c, 3, stride=2, padding=1, bias=False),
                       nn.BatchNorm2d(c), nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3),
                                      nn.Linear(c * size * size, 64), nn.ReLU())
        self.classes = nn.Linear(64, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classes(self.features(x))


def train_classifier(data: Data, n_classes: int, seed: int) -> Classifier:
    """Cross-entropy, Adam, a learning rate that falls to 0."""
    torch.manual_seed(seed)
    net = Classifier(data.size, data.channels, n_classes)
    opt = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, STEPS)
    batches = data.batches(min(128, len(data)), seed)
    for _ in range(STEPS):
        x, y = next(batches)
        opt.zero_grad()
        F.cross_entropy(net(x), y).backward()
        opt.step()
        schedule.step()
    return net.eval().requires_grad_(False)


def judge(net: Classifier, x: torch.Tensor) -> tuple[np.ndarray, torch.Tensor]:
    """Features, float64 (n, 64), and class probabilities (n, n_classes) of images (n, c, h, w)."""
    features = torch.cat([net.features(part) for part in x.split(500)])
    return features.double().numpy(), net.classes(features).softmax(1)


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Between Gaussians of the means and covariances of a (n, k) and b (m, k).

    tr (S1 S2)^(1/2) = tr (R S2 R)^(1/2), R = S1^(1/2): all matrices are symmetric, so eigh serves,
    and the square roots are of numbers that only rounding makes negative.
    """
    s1, s2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(s1)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ s2 @ root).clip(0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * cross)


def real_images(run: dict, data: str, root, n: int, seed: int):
    """(training set, held-out set) of (x, y), and the training images to compare with (m, c, h, w).
    """
    options = dict(root=root, skip_bad=run["skip_bad"])
    train = load_labelled(data, run["size"], **options)
    shuffle = np.random.default_rng(seed).permutation(len(train))
    if data in NAMES:
        held = load_labelled(data, run["size"], split="test", **options)
    else:  # a folder has no splits
        cut = len(train) * 5 // 6
        held, train._rows = train.subset(cut, len(train)), train._rows  # replaced below
    return train, held, shuffle


# The runs

class Begun(Exception):
    """Ends a run whose checkpoint of step 0 is written."""


def untrained(paper: str, run: dict, data_root: str, folder: str) -> Path:
    """The checkpoint of a run of these settings before its first step, by train.py's own hand.

    So G is initialised as the paper does it, from the data where it does that, and no folder needs
    code for it.
    """
    train = load(paper, "train")
    args = Namespace(**{**run, "out": f"{folder}/run", "resume": False, "device": "cpu",
                        "data_root": data_root})

    def nothing(*_, **__):
        raise Begun
        yield

    batches, handlers = Data.batches, {n: signal.getsignal(n)
                                       for n in (signal.SIGINT, signal.SIGTERM)}
    Data.batches = nothing
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Begun):
            train.train(args)
    finally:
        Data.batches = batches
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Path(args.out, "ckpt.pt")
