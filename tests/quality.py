"""Does it learn? Judges samples by a classifier trained on the spot on the run's data. By hand.

    python tests/quality.py gan                          runs/gan/ckpt.pt
    python tests/quality.py gan dcgan                    several papers, one table
    python tests/quality.py gan --ckpt elsewhere/ckpt.pt --data-root path

It needs data with classes: a built-in set, a torchvision one, or class folders. Protocol:
- classifier: a small CNN, trained on the training images at the run's size (of a folder: on five
  sixths of it); its accuracy is that on held-out images;
- Frechet: |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of the means and covariances of its 64
  penultimate features, between n samples and n training images. It is no FID and has no unit.
  What it says, it says beside two others: "held out", the distance of real images that neither
  G nor the classifier has seen, which a perfect G would have; and "untrained", that of G as the
  run began, from the checkpoint that train.py writes before its first step;
- classes: how many have at least a fifth of an equal share of the samples (2 % if there are ten),
  of those that have it of the real images;
- confidence: the mean probability of the most probable class;
- precision and recall (Kynkaanniemi et al. 2019): the share of samples that lie nearer to a real
  image than its third neighbour among real ones, in these features; and of real ones, likewise;
- asked: where a paper's generate() takes y, the share of samples of the class that y asks for.

Targets: all classes, confidence above 0.8, a quarter of the untrained G's distance or less. The
exit code is 1 if a paper misses one. Papers that translate images are judged by the truth instead:

    python tests/quality.py pix2pix cyclegan         see judge_pix2pix and so on
"""
import argparse
import contextlib
import inspect
import io
import sys
import time
from argparse import Namespace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

THREADS = torch.get_num_threads()
from conftest import ROOT, load  # it finds common/, too

from common import builtin
from common.builtin import PARTS
from common.data import (
    BUILTIN,
    FIRST_BUILTIN,
    N_BUILTIN,
    NAMES,
    Data,
    fail,
    load_crops,
    load_labelled,
    load_pairs,
)
from common.images import PALETTE, to_uint8

PAPERS = sorted(path.parent.name for path in ROOT.glob("*/sample.py"))
MIN_SAMPLES = 1000  # the covariance of 64 features takes some
EQUAL_SHARE = 0.2   # of the samples / n_classes, from which on a class counts as there
STEPS, BATCH = 800, 128  # of the classifier


# The judge

class Classifier(nn.Module):
    """Image (n, channels, size, size) -> logits (n, n_classes), from features (n, 64)."""

    def __init__(self, size: int, channels: int, n_classes: int):
        super().__init__()
        layers: list[nn.Module] = []
        c_in, c = channels, 32
        while size > 4:                                             # shapes for size 28:
            size = (size + 1) // 2                                  # (n,  32, 14, 14)
            layers += [nn.Conv2d(c_in, c, 3, stride=2, padding=1),  # (n,  64,  7,  7)
                       nn.BatchNorm2d(c), nn.ReLU()]                # (n, 128,  4,  4)
            c_in, c = c, min(2 * c, 128)
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.3),
                                      nn.Linear(c_in * size * size, 64), nn.ReLU())
        self.logits = nn.Linear(64, n_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits(self.features(x))


def train_classifier(data: Data, rows: np.ndarray, seed: int) -> Classifier:
    """On these rows of a labelled set, or of one with attributes: cross-entropy, Adam, a learning
    rate that falls to 0."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    net = Classifier(data.size, data.channels, len(data.classes or data.attributes))
    loss_of = F.cross_entropy if data.classes else F.binary_cross_entropy_with_logits
    opt = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, STEPS)
    for _ in range(STEPS):
        x, y = data[rng.choice(rows, BATCH)]
        loss = loss_of(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
        schedule.step()
    return net.eval().requires_grad_(False)


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The distance of two Gaussians with the means and covariances of a (n, k) and b (m, k).

    tr (S1 S2)^(1/2) = tr (R S2 R)^(1/2), R = S1^(1/2): everything is symmetric, so eigh does, and
    what is negative below a root is only rounding. float64.
    """
    s1, s2 = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(s1)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    product = root @ s2 @ root
    cross = np.sqrt(np.linalg.eigvalsh((product + product.T) / 2).clip(0)).sum()
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * cross)


def within(a: np.ndarray, b: np.ndarray, k: int = 3) -> float:
    """The share of a (n, d) that lie in the ball of one of b (m, d), out to its k-th neighbour."""
    a, b = torch.from_numpy(a), torch.from_numpy(b)
    radius = torch.cdist(b, b).kthvalue(k + 1).values  # the first is itself
    return (torch.cdist(a, b) <= radius).any(1).double().mean().item()


class Judge:
    """A classifier and what it makes of real images: one for all runs on the same pictures."""

    def __init__(self, data: str, size: int, root, skip_bad: bool, n: int, seed: int):
        began = time.monotonic()
        options = dict(root=root, skip_bad=skip_bad)
        with contextlib.redirect_stdout(io.StringIO()):
            train = load_labelled(data, size, **options)
            rows = np.random.default_rng(seed).permutation(len(train))
            if data in NAMES:
                held = load_labelled(data, size, split="test", **options)
                rows_held = np.random.default_rng(seed).permutation(len(held))
            else:  # a folder has no splits
                held, cut = train, len(train) // 6
                rows_held, rows = rows[:cut], rows[cut:]
        self.channels, self.n_classes = train.channels, len(train.classes)
        self.net = train_classifier(train, rows, seed)
        x, y = held[rows_held[:max(n, 10_000)]]
        features, p = self(x)
        accuracy = (p.argmax(1) == y).double().mean().item()
        real, p_real = self(train[rows[:n]][0])
        self.real, self.floor = real, frechet(features[:n], real)
        self.common = self.there(p_real)
        print(f"{data} at {size} px: the classifier is right on {accuracy:.1%} of {len(x):,} "
              f"held-out images; compared with {len(real):,} training images, and these with "
              f"{len(features[:n]):,} held-out ones; {time.monotonic() - began:.0f} s", flush=True)

    def __call__(self, x: torch.Tensor) -> tuple[np.ndarray, torch.Tensor]:
        """Features, float64 (n, 64), and class probabilities (n, n_classes), of (n, c, h, w)."""
        features = torch.cat([self.net.features(part) for part in x.split(500)])
        return features.double().numpy(), self.net.logits(features).softmax(1)

    def there(self, p: torch.Tensor) -> torch.Tensor:
        """Which classes have their part of images with probabilities p (n, n_classes): bool."""
        counts = p.argmax(1).bincount(minlength=self.n_classes)
        return counts >= EQUAL_SHARE * len(p) / self.n_classes

    def measure(self, x: torch.Tensor, y: torch.Tensor | None
                ) -> tuple[float, int, float, str, str, str]:
        """Of samples x (n, c, h, w), asked to be of classes y: Frechet distance, number of classes,
        confidence; and as text precision, recall, the share that is as asked for."""
        features, p = self(x)
        return (frechet(features, self.real), (self.there(p) & self.common).sum().item(),
                p.amax(1).mean().item(), f"{within(features, self.real):.2f}",
                f"{within(self.real, features):.2f}",
                "-" if y is None else f"{(p.argmax(1) == y).double().mean().item():.1%}")


# The runs

class Begun(Exception):
    """Ends a run whose checkpoint of step 0 is written."""


def untrained(paper: str, run: dict, folder: str) -> Path:
    """The checkpoint of a run of these settings before its first step, by train.py itself: so G
    starts as the paper has it, from the data where it does so, and no folder needs code for it."""
    train = load(paper, "train")
    args = Namespace(**{**run, "out": folder, "resume": False, "device": "cpu"})

    def stream(*_args, **_kwargs):
        raise Begun  # at the first next(): the checkpoint of step 0 is written just before
        yield

    with (mock.patch.object(Data, "batches", stream), contextlib.suppress(Begun),
          contextlib.redirect_stdout(io.StringIO())):
        train.train(args)
    return Path(folder, "ckpt.pt")


def draw(sample, G: nn.Module, ckpt: dict, n: int, seed: int, n_classes: int
         ) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Samples (n, c, h, w) by a paper's sample.py; and their classes, in turn, where it takes y."""
    given = {}
    if "y" in inspect.signature(sample.generate).parameters and ckpt["args"].get("conditional", 1):
        given["y"] = torch.arange(n) % n_classes
    return torch.cat(list(sample.generate(G, ckpt, n, seed, **given))), given.get("y")


def assess(paper: str, args: argparse.Namespace, judges: dict) -> list[str]:
    """A row of the table."""
    sample = load(paper, "sample")
    G, ckpt = sample.load_generator(args.ckpt or Path(f"runs/{paper}/ckpt.pt"))
    run = ckpt["args"]
    run["data_root"] = args.data_root or run["data_root"]
    on = args.data or run["data"], run["size"], run["data_root"], run["skip_bad"]
    if on not in judges:
        judges[on] = Judge(*on, args.n, args.seed)
    judge = judges[on]
    if judge.channels != ckpt["channels"]:
        fail(f"{paper} draws {ckpt['channels']} channels, {on[0]} has {judge.channels}: "
             "give its own --data")

    x, y = draw(sample, G, ckpt, args.n, args.seed, judge.n_classes)
    distance, there, confidence, *shares = judge.measure(x, y)
    with TemporaryDirectory() as folder:
        G, _ = sample.load_generator(untrained(paper, {**run, "data": on[0]}, folder))
        x, y = draw(sample, G, ckpt, args.n, args.seed, judge.n_classes)
    distance_0, *_ = judge.measure(x, y)

    common = judge.common.sum().item()
    missed = [name for name, ok in {
        "classes": there == common, "confidence": confidence > 0.8,
        "distance": distance <= distance_0 / 4}.items() if not ok]
    return [paper, f"{on[0]} {on[1]}", f"{ckpt['step']:,}", f"{distance:.2f}",
            f"{judge.floor:.2f}", f"{distance_0:.2f}", f"{distance / distance_0:.3f}",
            f"{there}/{common}", f"{confidence:.3f}", *shares,
            f"MISSED: {', '.join(missed)}" if missed else "ok"]


def show(table: list[list[str]]) -> bool:
    """Prints it; whether all targets were met."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        print("  ".join(cell.ljust(w) if i in (0, 1, len(cells) - 1) else cell.rjust(w)
                        for i, (cell, w) in enumerate(zip(cells, widths, strict=True))).rstrip())
    return all(cells[-1] == "ok" for cells in table[1:])


# Papers that translate: the truth is known

def ids_of(painted: torch.Tensor) -> torch.Tensor:
    """Label maps, indices into PARTS (n, h, w), from images in PALETTE's colours (n, 3, h, w)."""
    same = to_uint8(painted)[:, None] == PALETTE[:len(PARTS), :, None, None]
    return same.all(2).byte().argmax(1)


def train_segmenter(data: Data, seed: int) -> nn.Module:
    """Portrait (n, 3, h, w) -> logits (n, n_parts, h, w), on pairs of faces-labels."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for c_in, dilation in ((3, 1), (32, 2), (32, 4), (32, 8), (32, 1)):
        layers += [nn.Conv2d(c_in, 32, 3, padding=dilation, dilation=dilation),
                   nn.BatchNorm2d(32), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Conv2d(32, len(PARTS), 1))
    opt = torch.optim.Adam(net.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, STEPS // 2)
    for _, (painted, x) in zip(range(STEPS // 2), data.batches(16, seed), strict=False):
        loss = F.cross_entropy(net(x), ids_of(painted))
        opt.zero_grad()
        loss.backward()
        opt.step()
        schedule.step()
    return net.eval().requires_grad_(False)


def colours(x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The best one colour for each part, (n_parts, 3): the median over its pixels."""
    x = x.permute(0, 2, 3, 1)
    return torch.stack([x[ids == i].median(0).values if (ids == i).any() else torch.zeros(3)
                        for i in range(len(PARTS))])


def agreement(net: nn.Module, images: torch.Tensor, ids: torch.Tensor) -> tuple[float, float]:
    """Pixel accuracy, and the mean over classes of intersection over union, of what the segmenter
    sees in the images against their label maps."""
    seen = torch.cat([net(part).argmax(1) for part in images.split(100)])
    both = torch.bincount((ids * len(PARTS) + seen).flatten(), minlength=len(PARTS) ** 2)
    both = both.view(len(PARTS), -1).double()
    union = both.sum(0) + both.sum(1) - both.diag()
    iou = both.diag() / union.clamp_min(1)
    return (both.diag().sum() / both.sum()).item(), iou.mean().item()


def judge_pix2pix(paper: str, args: argparse.Namespace) -> bool:
    """Prints mean |y - G(x)| (values in [-1, 1]) over up to 1,000 held-out pairs, beside that of
    - x itself, untranslated;
    - one image, the best there is: of each value the median over 2,000 training targets;
    and of drawn portraits of
    - one colour for each label, the median over its pixels in 2,000 training portraits;
    - each portrait's own such colours.
    Drawn portraits are judged as the paper does, too, by a segmenter trained on real ones
    (FCN-score): the share of pixels, and the mean intersection over union, that agree with the
    portrait's label map.
    Targets: half the L1 of the best one image or less; of drawn portraits half of that of one
    colour for each label, and 0.9 of the pixel accuracy of real ones. From label maps or contours
    the L1 is not asked for: they do not tell the colours, which are drawn independently of all
    shapes, and even a portrait's own colours are near half.
    """
    sample = load(paper, "sample")
    G, ckpt = sample.load_generator(args.ckpt or Path(f"runs/{paper}/ckpt.pt"))
    run = ckpt["args"]
    run.update(data=args.data or run["data"], data_root=args.data_root or run["data_root"])

    def held_out(data: str) -> list[torch.Tensor]:
        chosen = {**ckpt, "args": {**run, "data": data}}
        parts = sample.some_held_out(chosen, min(1000, ckpt["n_held"]), args.seed)
        return [torch.cat(half) for half in zip(*parts, strict=True)]

    with contextlib.redirect_stdout(io.StringIO()):
        x, y = held_out(run["data"])
        pairs = load_pairs(run["data"], run["size"], root=run["data_root"],
                           skip_bad=run["skip_bad"])
    y_fake = torch.cat(list(sample.generate(G, x.split(50), args.seed)))
    faces = run["data"] in BUILTIN and run["direction"] == "AtoB"
    target = pairs[:2000][run["direction"] == "AtoB"]

    def l1(guess: torch.Tensor) -> float:
        return (guess - y).abs().mean().item()

    mean_l1, constant = l1(y_fake), l1(target.median(0).values)
    print(f"{paper}: {run['data']} {run['direction']} at {run['size']} px, step "
          f"{ckpt['step']:,}, {len(x):,} held-out pairs\n  L1 {mean_l1:.4f}; untranslated "
          f"{l1(x):.4f}; of the best one image {constant:.4f}, ratio {mean_l1 / constant:.3f}")
    if not faces:
        return mean_l1 <= constant / 2
    with contextlib.redirect_stdout(io.StringIO()):  # the same portraits, with their label maps
        pairs = load_pairs("faces-labels", run["size"])
        painted, _ = held_out("faces-labels")
    ids, of_training = ids_of(painted), ids_of(pairs[:2000][0])
    flat = colours(target, of_training)[ids].permute(0, 3, 1, 2)
    own = torch.stack([colours(y[i:i + 1], ids[i:i + 1])[ids[i]] for i in range(len(y))])
    constant = l1(flat)
    print(f"  of one colour for each label {constant:.4f}, ratio {mean_l1 / constant:.3f}; "
          f"of each portrait's own colours {l1(own.permute(0, 3, 1, 2)):.4f}")
    net, accuracy = train_segmenter(pairs, args.seed), {}
    for name, images in (("real portraits", y), ("G", y_fake), ("one colour for each label", flat)):
        accuracy[name], iou = agreement(net, images, ids)
        print(f"  segmenter on {name}: pixel accuracy {accuracy[name]:.3f}, class IoU {iou:.3f}")
    near = run["data"] != "faces-flat" or mean_l1 <= constant / 2
    return near and accuracy["G"] >= 0.9 * accuracy["real portraits"]


def judge_spade(paper: str, args: argparse.Namespace) -> bool:
    """Prints how well a segmenter that was trained on drawn portraits finds the label maps of 1,000
    held-out ones in the real portraits and in G's: pixel accuracy, class IoU. [Sec. 4]
    Targets: 0.9 of the accuracy and 0.85 of the class IoU of the real ones.
    """
    sample = load(paper, "sample")
    G, ckpt = sample.load_generator(args.ckpt or Path(f"runs/{paper}/ckpt.pt"))
    run = ckpt["args"]
    if run["data"] != "faces":
        fail(f"{paper} is judged on faces, whose segmenter is trained on the spot")
    with contextlib.redirect_stdout(io.StringIO()):
        parts = list(sample.some_held_out(ckpt, 1000, args.seed))
        net = train_segmenter(load_pairs("faces-labels", run["size"]), args.seed)
    x, ids = (torch.cat(field) for field in zip(*parts, strict=True))
    x_fake = torch.cat(list(sample.generate(G, ckpt, parts, args.seed)))
    (accuracy, iou), (accuracy_fake, iou_fake) = (agreement(net, images, ids)
                                                  for images in (x, x_fake))
    print(f"{paper}: {run['data']} at {run['size']} px, step {ckpt['step']:,}, {len(x):,} held-out "
          f"label maps\n  segmenter on real portraits: pixel accuracy {accuracy:.3f}, class IoU "
          f"{iou:.3f}\n  on G's: {accuracy_fake:.3f}, {iou_fake:.3f}, ratios "
          f"{accuracy_fake / accuracy:.3f}, {iou_fake / iou:.3f}")
    return accuracy_fake >= 0.9 * accuracy and iou_fake >= 0.85 * iou


def judge_cyclegan(paper: str, args: argparse.Namespace) -> bool:
    """Prints mean absolute differences, in percent of the range of a pixel, in both directions.

    By held-out images that are known in both looks: the drawn faces, or a folder whose testA/ and
    testB/ hold files of the same names. Targets: "to the truth" less than "untranslated", that of
    the input itself to the truth, and than "to another's", the truth of the next image; the cycle
    error less than that of the networks as the run began.
    """
    sample = load(paper, "sample")
    nets, ckpt = sample.load_generator(args.ckpt or Path(f"runs/{paper}/ckpt.pt"))
    G, F, run = nets["AtoB"], nets["BtoA"], ckpt["args"]
    run["data"], size = args.data or run["data"], run["size"]
    run["data_root"] = args.data_root or run["data_root"]
    if run["data"] == "faces":
        first = FIRST_BUILTIN["test"]
        index = range(first, first + min(args.n, N_BUILTIN["test"]))
        drawn = builtin.faces(index, size, want=("image", "pencil"))
        pairs = [drawn[name].float() / 127.5 - 1 for name in ("image", "pencil")]
    else:
        pairs = load_pairs(run["data"], size, split="test", skip_bad=run["skip_bad"])[:args.n]
    a, b = (x[:, :c] for x, c in zip(pairs, ckpt["channels"], strict=True))
    with TemporaryDirectory() as folder, torch.no_grad():
        nets_0, _ = sample.load_generator(untrained(paper, run, folder))
        G_0, F_0 = nets_0["AtoB"], nets_0["BtoA"]

    def through(net, x):
        return torch.cat([net(part) for part in x.split(100)])

    def off(x, y):
        return (x - y).abs().mean().item() * 50  # the range is 2

    table = [[paper, "data", "step", "images", "to the truth", "untranslated",
              "to another's", "cycle", "cycle, untrained", "targets"]]
    for name, there, back, there_0, back_0, x, y in (
            ("A to B", G, F, G_0, F_0, a, b), ("B to A", F, G, F_0, G_0, b, a)):
        fake = through(there, x)
        values = [off(fake, y), off(x, y), off(fake, y.roll(1, 0)), off(through(back, fake), x),
                  off(through(back_0, through(there_0, x)), x)]
        missed = [what for what, ok in {
            "untranslated": values[0] < values[1], "another's": values[0] < values[2],
            "cycle": values[3] < values[4]}.items() if not ok]
        table.append([name, f"{run['data']} {size}", f"{ckpt['step']:,}", str(len(x)),
                      *(f"{value:.2f}" for value in values),
                      f"MISSED: {', '.join(missed)}" if missed else "ok"])
    return show(table)


def judge_srgan(paper: str, args: argparse.Namespace) -> bool:
    """Prints PSNR and SSIM (of Y, 4 pixels of each border left out), and the detail, of held-out
    crops that were made smaller and enlarged again: up to 500 of drawn faces that no run has seen,
    of a folder those that the run held out. The detail is the root mean square of Y's second
    differences, as a share of that of the crops themselves: blur has less.
    Targets: SRResNet's PSNR 1.5 dB above bicubic's; SRGAN's detail nearer to 1 than SRResNet's.
    """
    sample, model = load(paper, "sample"), load(paper, "model")
    nets, ckpt = sample.load_generator(args.ckpt or Path(f"runs/{paper}/ckpt.pt"))
    run = ckpt["args"]
    run.update(data=args.data or run["data"], data_root=args.data_root or run["data_root"])
    with contextlib.redirect_stdout(io.StringIO()):
        if run["data"] in NAMES:
            x = load_crops(run["data"], run["size"], split="test")[:min(args.n, 500)]
        else:
            x = sample.held_out(ckpt, skip_bad=run["skip_bad"])[:args.n]

    def detail(x: torch.Tensor) -> float:
        y = model.luma(x)
        return F.conv2d(y, torch.tensor([[[[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]]])).std().item()

    shown = sample.versions(nets, x)
    values, of_x = sample.measures(shown).mean(0).tolist(), detail(x)
    details = [detail(y) / of_x for y in list(shown.values())[:4]]
    gain = values[2][0] - values[1][0]
    missed = [name for name, ok in {"PSNR": gain >= 1.5, "detail": abs(details[3] - 1) < abs(
        details[2] - 1)}.items() if not ok]
    print(f"{paper}: {run['data']}, {run['size']} px, x{run['scale']}, step {ckpt['step']:,}, "
          f"{len(x)} held-out crops; SRResNet {gain:+.2f} dB from bicubic; targets: "
          + (f"MISSED: {', '.join(missed)}" if missed else "ok"))
    return show([["", "PSNR", "SSIM", "detail", ""], *(
        [name, f"{a:.2f}", f"{b:.4f}", f"{c:.3f}", "ok"]
        for name, (a, b), c in zip(shown, values, details, strict=False))]) and not missed


def judge_stargan(paper: str, args: argparse.Namespace) -> bool:
    """Prints what a classifier, trained on the run's data, sees in translations of held-out images.

    Each image is translated into each domain that it is not in; of two data sets, the first one's.
    "asked": how many of them the classifier sees there, and in none that the domain excludes; "the
    rest": how many of all other attributes of the data it sees as they were, and of these alone
    those that G has learnt, and that no label has named. All beside what it sees in the images
    untranslated, which for the rest is what could be had. Targets, over all translations: 85 %
    asked, 80 % the rest (classes leave none).
    """
    sample, train = load(paper, "sample"), load(paper, "train")
    nets, ckpt = sample.load_generator(args.ckpt or Path(f"runs/{paper}/ckpt.pt"))
    run, domains = ckpt["args"], ckpt["domains"]
    with contextlib.redirect_stdout(io.StringIO()):
        data, held = train.load(args.data or run["data"], run["size"],
                                root=args.data_root or run["data_root"], skip_bad=run["skip_bad"])
    net = train_classifier(data, np.arange(len(data)), args.seed)
    known = data.classes or data.attributes
    columns = [known.index(name) for of_set in domains[0] for name in of_set]
    x, y = held[:args.n]
    truth = y if y.dim() == 2 else torch.eye(len(known))[y]

    def right(images: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        logits = torch.cat([net(part[:, :data.channels]) for part in images.split(250)])
        return wanted == (torch.eye(len(known))[logits.argmax(1)] if data.classes else logits > 0)

    accuracy = right(x, truth).double().mean(0).tolist()
    print(f"{paper}: {data.name} at {run['size']} px, step {ckpt['step']:,}, {len(x):,} "
          f"{'images of the training' if held is data else 'held-out images'}; the classifier is "
          f"right on {', '.join(f'{n} {a:.1%}' for n, a in zip(known, accuracy, strict=True))}")
    kinds = ["asked", "the rest", "learnt", "unnamed"]

    def percent(share: torch.Tensor) -> str:
        return "-" if share.isnan() else f"{share:.1%}"

    table, sums = [["domain", "images", *kinds, *(f"before: {kind}" for kind in kinds)]], 0
    for k, at, names in sample.groups(domains):
        group = columns[at:at + len(names)]
        others = [i for i in range(len(known)) if i not in group and not data.classes]
        learnt = [i for i in others if i in columns]
        for place in range(at, at + len(names) if k == 0 else at):
            rows = (truth[:, columns[place]] == 0) | (len(names) == 1)
            c = sample.join(truth[rows][:, columns], 0, sample.sizes_of(ckpt))
            c = sample.change(c, domains, place)
            images = x[rows].expand(-1, ckpt["x_fixed"].shape[1], -1, -1)
            fake = torch.cat([sample.translate(nets["G"], *part) for part in
                              zip(images.split(250), c.split(250), strict=True)])
            wanted = truth[rows].clone()
            wanted[:, columns] = c[:, :len(columns)]
            shares = torch.stack([share.double().mean() for r in (right(fake, wanted),
                                                                  right(images, wanted))
                                  for share in (r[:, group].all(1), r[:, others], r[:, learnt],
                                                r[:, [i for i in others if i not in learnt]])])
            sums += torch.cat([shares, torch.ones(1)]) * len(fake)
            table.append([names[place - at], f"{len(fake):,}", *map(percent, shares)])
    shares = sums[:-1] / sums[-1]
    table.append(["all", f"{sums[-1]:,.0f}", *map(percent, shares)])
    show(table)
    return bool(shares[0] >= 0.85 and (data.classes or shares[1] >= 0.8))


TRANSLATORS = {  # paper -> its own judge, which says whether it passes
    name.removeprefix("judge_"): judge for name, judge in list(globals().items())
    if name.startswith("judge_")}


def compare(args: argparse.Namespace) -> bool:
    """Prints the table of papers that draw images of classes; whether all pass."""
    judges: dict = {}
    print(f"{args.n:,} samples, seed {args.seed}, torch {torch.__version__}, classifier: {STEPS} "
          f"steps of {BATCH} images", flush=True)
    table = [["paper", "data", "step", "Frechet", "held out", "untrained", "ratio", "classes",
              "confidence", "precision", "recall", "asked", "targets"],
             *(assess(paper, args, judges) for paper in args.papers)]
    return show(table)


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.error = fail
    p.add_argument("papers", nargs="+", choices=PAPERS, metavar="paper", help=", ".join(PAPERS))
    p.add_argument("--ckpt", type=Path, help="of a single paper, instead of runs/PAPER/ckpt.pt")
    p.add_argument("--data", help="where the run's folder lies now, or another set to judge by")
    p.add_argument("--data-root", help="where the run's data set lies now")
    p.add_argument("--n", type=int, default=5000, help="how many samples")
    p.add_argument("--seed", type=int, default=0, help="of the classifier, the choice of real "
                   "images, the samples")
    args = p.parse_args(argv)
    if args.n < MIN_SAMPLES:
        fail(f"--n {args.n}: {MIN_SAMPLES:,} samples or more, fewer say nothing about 64 features")
    if args.ckpt and len(args.papers) > 1:
        fail("--ckpt is of one paper: name one")
    torch.set_num_threads(THREADS)  # conftest has set one, for its tiny tensors

    passed = [TRANSLATORS[paper](paper, args) for paper in args.papers if paper in TRANSLATORS]
    args.papers = [paper for paper in args.papers if paper not in TRANSLATORS]
    if args.papers:
        passed.append(compare(args))
    if not all(passed):
        sys.exit(1)


if __name__ == "__main__":
    main()
