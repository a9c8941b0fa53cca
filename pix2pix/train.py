"""pix2pix: Image-to-Image Translation with Conditional Adversarial Networks. Isola, Zhu, Zhou,
Efros. CVPR 2017, arXiv 1611.07004.

    python pix2pix/train.py                                  flat colours to drawn faces, minutes
    python pix2pix/train.py --data path/to/pairs --size 128  your own, files A|B or folders A/, B/
    python pix2pix/train.py --paper --data facades --direction BtoA       the paper's own scale
    python pix2pix/train.py --resume                         goes on where the last run stopped

What this paper changes: both networks are given an image, which G translates. D judges patches of
input and output together, and L1 to the true output keeps the low frequencies right.
"""
import argparse
import io
import math
import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
import torch.nn.functional as F
from model import FIELDS, Discriminator, Generator
from torch.nn.utils import parameters_to_vector

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(ROOT))  # the repository root, for common/
from common.data import NAMES, SPLITS, Data, fail, load_pairs  # noqa: E402
from common.images import save_curves, save_gif, save_grid  # noqa: E402

NAME = "pix2pix"
PAPER = dict(          # --paper
    size=256,          # [App. 6.1]
    width=64,          # [App. 6.1]
    net_d=70,          # [Sec. 4.4]
    batch_size=1,      # [App. 6.2]
    steps=80_000,      # 200 epochs of the 400 facades [App. 6.2]
)
SCALE = ", ".join(f"{name} {value}" for name, value in PAPER.items())


def number(kind: type, low: float, high: float = math.inf):
    """An argparse type: an int or float in [low, high)."""
    def parse(text: str):
        if not low <= kind(text) < high:
            raise argparse.ArgumentTypeError(f"{text} is not in [{low}, {high})")
        return kind(text)
    parse.__name__ = kind.__name__  # for argparse's own message
    return parse


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Flags given now > the checkpoint's (--resume) > PAPER (--paper) > the defaults below."""
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0], formatter_class=lambda prog:
        argparse.ArgumentDefaultsHelpFormatter(prog, max_help_position=32, width=100))
    p.error = fail  # one line, without the usage
    add = p.add_argument
    add("--data", default="faces-flat", help="faces-flat, faces-labels, faces-outline, facades, "
        "maps, cityscapes, night2day, edges2shoes, edges2handbags, or a folder of pairs")
    add("--data-root", default=str(ROOT / "data"), help="where downloaded sets are kept")
    add("--out", default=f"runs/{NAME}", help="the folder of this run")
    add("--direction", default="AtoB", choices=("AtoB", "BtoA"), help="which half of a pair is "
        "the input; facades from labels: BtoA")
    add("--size", type=int, default=32, choices=(16, 32, 64, 128, 256, 512),
        help="height and width; paper: 256 [App. 6.1]")
    add("--width", type=number(int, 1), default=32, help="channels at the image; 64 [App. 6.1]")
    add("--net-g", default="unet", choices=("unet", "encoder-decoder"), help="with skips, or "
        "without [Sec. 4.3]")
    add("--dropout", type=number(int, 0), default=3, help="how many layers of the decoder have it, "
        "from the innermost on [App. 6.1]")
    add("--net-d", type=int, default=16, choices=FIELDS, help="receptive field; paper: 70 of 256 "
        "pixels, the best of 1, 16, 70, 286 [Sec. 4.4]")
    add("--lambda-l1", type=number(float, 0), default=100.0, help="weight of L1 [Eq. 4]")
    add("--lambda-gan", type=number(float, 0), default=1.0, help="weight of G's loss against D; 0: "
        "L1 alone [Sec. 4.2]")
    add("--jitter", type=number(float, 1), default=286 / 256, help="side before a random crop to "
        "size, over size: 286 / 256 [App. 6.2]; 1: no crop")
    add("--no-flip", action="store_true", help="do not mirror half of the pairs [App. 6.2]")
    add("--batch-size", type=number(int, 1), default=1, help="pairs a step [App. 6.2]")
    add("--lr", type=number(float, 0), default=2e-4, help="Adam's learning rate [App. 6.2]")
    add("--beta1", type=number(float, 0, 1), default=0.5, help="Adam's beta1 [App. 6.2]")
    add("--steps", type=number(int, 1), default=12_000, help="updates of G; paper: 200 epochs")
    add("--log-every", type=number(int, 1), default=50, help="steps between rows of log.csv")
    add("--sample-every", type=number(int, 1), default=250, help="steps between sample grids")
    add("--save-every", type=number(int, 1), default=1000, help="steps between checkpoints")
    add("--workers", type=number(int, 0), default=4, help="readers of a set too large to keep")
    add("--seed", type=number(int, 0, 2**32), default=0, help="of weights, noise, the data's order")
    add("--device", default=str(torch.accelerator.current_accelerator())
        if torch.accelerator.is_available() else "cpu", help="cuda, mps or cpu; the best there is")
    add("--skip-bad", action="store_true", help="leave unreadable images out, do not stop")
    add("--paper", action="store_true", help=f"the paper's scale: {SCALE}")
    add("--resume", action="store_true", help="go on from OUT/ckpt.pt; flags given now override")
    args = p.parse_args(argv)
    ckpt = Path(args.out) / "ckpt.pt"
    if args.paper:
        p.set_defaults(**PAPER)
    if args.resume:
        p.set_defaults(**load_checkpoint(ckpt)["args"])
    elif ckpt.exists():
        fail(f"{ckpt.resolve()} exists: --resume goes on with that run, --out DIR starts another")
    return p.parse_args(argv)


def pick_device(name: str) -> torch.device:
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as e:
        fail(f"--device {name}: {str(e).splitlines()[0]}")


def load_checkpoint(path: Path) -> dict:
    """Tensors and plain types only: nothing that a file holds is executed."""
    try:
        ckpt = torch.load(path, map_location="cpu", weights_only=True)
        paper = ckpt["paper"]
    except FileNotFoundError:
        fail(f"no checkpoint at {path.resolve()}: start the run without --resume")
    except Exception as e:  # torch's readers raise many kinds
        fail(f"{path.resolve()} is damaged, or no checkpoint of ours ({type(e).__name__})")
    if paper != NAME:
        fail(f"{path.resolve()} is a checkpoint of {paper}, not of {NAME}")
    return ckpt


def save_checkpoint(path: Path, ckpt: dict) -> None:
    """Written beside, flushed, renamed: a kill or a full disk leaves the last good file."""
    buffer, tmp = io.BytesIO(), path.with_suffix(".tmp")
    torch.save(ckpt, buffer)  # in memory first: a full disk is then a plain OSError
    try:
        with open(tmp, "wb") as f:
            f.write(buffer.getbuffer())
            f.flush()
            os.fsync(f.fileno())
        os.replace(tmp, path)
    finally:
        tmp.unlink(missing_ok=True)


def show(line: str) -> None:
    """A status line: rewritten in place on a terminal, one below the other in a file."""
    tty = sys.stdout.isatty()
    print(f"\r\x1b[K{line}" if tty else line, end="" if tty else "\n", flush=True)


def check_finite(step: int, ckpt: Path, **terms: torch.Tensor) -> None:
    """Ends the run before a NaN is saved."""
    for name, value in terms.items():
        if not value.isfinite().all():
            fail(f"{name} is not finite at step {step}; last good checkpoint: {ckpt.resolve()}")


def load_data(args: argparse.Namespace, device: torch.device) -> tuple[Data, Data]:
    """Pairs to train on, of size * jitter, and held-out ones: the test or val split, or, of a
    folder that has none, the last sixth."""
    options = dict(root=args.data_root, device=device, workers=args.workers, skip_bad=args.skip_bad)
    data = load_pairs(args.data, round(args.size * args.jitter), **options)
    held = load_pairs(args.data, args.size, split="test", **options)
    if held.channels != data.channels:
        fail(f"{data.name}: the held-out pairs have {held.channels} channels, the others "
             f"{data.channels}")
    places = [f"{part}{end}" for part in SPLITS["test"] for end in ("", "A")]
    places += [f"A/{part}" for part in SPLITS["test"]]
    n_held = len(data) // 6
    if args.data not in NAMES and n_held and not any(Path(data.name, p).is_dir() for p in places):
        n = len(data) - n_held
        data, held = data.subset(0, n), held.subset(n, len(held))
    return data, held


def directed(pair: tuple[torch.Tensor, torch.Tensor], direction: str) -> list[torch.Tensor]:
    """(a, b) as [x, y], from which G makes y of x."""
    return list(pair if direction == "AtoB" else pair[::-1])


def crop_and_flip(x: torch.Tensor, y: torch.Tensor, size: int, flip: bool) -> list[torch.Tensor]:
    """A random size x size window of each pair, mirrored with probability 1/2. [App. 6.2]"""
    n, c, side, _ = x.shape
    top, left = torch.randint(side - size + 1, (2, n)).tolist()
    mirrored = (torch.rand(n) < 0.5).tolist()
    both = torch.cat([x, y], 1)  # one window for the two
    both = [p[:, t:t + size, s:s + size] for p, t, s in zip(both, top, left, strict=True)]
    both = [p.flip(2) if flip and m else p for p, m in zip(both, mirrored, strict=True)]
    return list(torch.stack(both).split(c, 1))


def d_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """-(E[log D(x, y)] + E[log(1 - D(x, G(x)))]) / 2, from logits (n, 1, h, w). Eq. 1, negated;
    the half: [Sec. 3.3]."""
    loss = F.softplus(-real).mean() + F.softplus(fake).mean()  # softplus(-a) = -log sigmoid(a)
    return loss / 2


def g_loss(fake: torch.Tensor) -> torch.Tensor:
    """-E[log D(x, G(x))], from logits (n, 1, h, w): the non-saturating loss. [Sec. 3.3]"""
    return F.softplus(-fake).mean()


def l1_loss(y_fake: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """E[|y - G(x)|], the mean over all values. Eq. 3"""
    return (y - y_fake).abs().mean()


@torch.no_grad()
def sample(G: Generator, x: torch.Tensor, y: torch.Tensor, seed: int) -> torch.Tensor:
    """Rows of input | output | target, (3n, c, h, w). Dropout is on, as in training. [Sec. 3.3]"""
    torch.manual_seed(seed)  # the same noise through the run
    return torch.stack([x, G(x), y], 1).flatten(0, 1)


def train(args: argparse.Namespace) -> None:
    out, device = Path(args.out), pick_device(args.device)
    is_paper = all(getattr(args, name) == value for name, value in PAPER.items())
    scale = "the paper's scale" if is_paper else f"a small setting; --paper: {SCALE}"
    print(f"{NAME}: {args.data} at {args.size}x{args.size} on {device}, {scale}", flush=True)
    if args.net_d > 3 * args.size:  # D's last norm would see a single value
        fail(f"--net-d {args.net_d} needs --size {1 << (args.net_d // 3).bit_length()} or more")
    data, held = load_data(args, device)

    torch.manual_seed(args.seed)
    x_fixed, y_fixed = directed(held[:12], args.direction)  # one set of pairs through the run
    G = Generator(args.size, data.channels, data.channels, args.width,
                  args.net_g == "unet", range(args.dropout)).to(device)
    D = Discriminator(data.channels, data.channels, args.width, args.net_d).to(device)
    opt_g = torch.optim.Adam(G.parameters(), lr=args.lr, betas=(args.beta1, 0.999))
    opt_d = torch.optim.Adam(D.parameters(), lr=args.lr, betas=(args.beta1, 0.999))
    settings = {k: v for k, v in vars(args).items() if k not in ("out", "resume")}
    settings["data"] = data.name  # of a folder, its absolute path
    parts = {"G": G, "D": D, "opt_g": opt_g, "opt_d": opt_d}  # all that training changes

    path, log = out / "ckpt.pt", out / "log.csv"
    first, log_bytes = 1, 0
    if args.resume:
        ckpt = load_checkpoint(path)
        first, log_bytes = ckpt["step"] + 1, ckpt["log_bytes"]
        x_fixed, y_fixed = ckpt["x_fixed"].to(device), ckpt["y_fixed"].to(device)
        try:
            if ckpt["args"]["direction"] != args.direction:  # the networks would not notice
                raise ValueError
            for name, part in parts.items():
                part.load_state_dict(ckpt[name])
        except (RuntimeError, ValueError):
            fail(f"{path} does not fit: a run keeps its direction, size, width, networks, channels")
        for group in opt_g.param_groups + opt_d.param_groups:
            group.update(lr=args.lr, betas=(args.beta1, 0.999))  # flags given now override
    batches = data.batches(args.batch_size, args.seed, start=first - 1)

    def save(step: int, **losses: torch.Tensor) -> None:
        check_finite(step, path, **losses, G=parameters_to_vector(G.parameters()),
                     D=parameters_to_vector(D.parameters()))
        save_checkpoint(path, {
            "paper": NAME, "step": step, "log_bytes": log.stat().st_size, "x_fixed": x_fixed,
            "y_fixed": y_fixed, "n_held": len(held), "args": settings, "channels": data.channels,
            **{name: part.state_dict() for name, part in parts.items()}})

    (out / "samples").mkdir(parents=True, exist_ok=True)
    with open(log, "a" if args.resume else "w") as f:
        f.truncate(min(f.tell(), log_bytes))  # rows later than the checkpoint will come again
        if f.tell() == 0:
            f.write("step,loss_d,loss_g,L1,D(y),D(G(x))\n")
    save(first - 1)  # from here on a run that is killed resumes

    stop: list[int] = []  # a first Ctrl-C or SIGTERM lets the step end, a second one does not
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda n, _: (stop.append(n), signal.signal(n, signal.SIG_DFL)))
    began = time.monotonic()
    for step in range(first, args.steps + 1):
        torch.manual_seed(args.seed * 1_000_003 + step)  # a step depends on (seed, step) alone
        x, y = directed(next(batches), args.direction)
        x, y = crop_and_flip(x, y, args.size, not args.no_flip)

        # Update D
        y_fake = G(x)
        real, fake = D(x, y), D(x, y_fake.detach())
        loss_d = d_loss(real, fake)
        opt_d.zero_grad()
        loss_d.backward()
        opt_d.step()

        # Update G  [Eq. 4]
        D.requires_grad_(False)
        loss_g, loss_l1 = g_loss(D(x, y_fake)), l1_loss(y_fake, y)
        opt_g.zero_grad()
        (args.lambda_gan * loss_g + args.lambda_l1 * loss_l1).backward()
        opt_g.step()
        D.requires_grad_(True)

        # Report
        if step % args.log_every == 0:
            check_finite(step, path, loss_d=loss_d, loss_g=loss_g, loss_l1=loss_l1)
            values = [v.mean().item() for v in (loss_d, loss_g, loss_l1, real.sigmoid(),
                                                fake.sigmoid())]
            with open(log, "a") as f:
                print(step, *(f"{v:.5f}" for v in values), sep=",", file=f)
            speed = (step - first + 1) / (time.monotonic() - began)  # steps per second
            eta = timedelta(seconds=round((args.steps - step) / speed))
            show("step {}/{}  loss_d {:.3f}  loss_g {:.3f}  L1 {:.3f}  D(y) {:.2f}  D(G(x)) {:.2f}"
                 .format(step, args.steps, *values)
                 + f"  {speed * len(x):.0f} images/s  ETA {eta}")
        if step % args.sample_every == 0 or step == args.steps:
            save_grid(out / f"samples/{step:06d}.png", sample(G, x_fixed, y_fixed, args.seed),
                      n_cols=9)
            save_curves(out / "losses.png", log)
        if step % args.save_every == 0 or step == args.steps or stop:
            save(step, loss_d=loss_d, loss_g=loss_g, loss_l1=loss_l1)
        if stop:
            print(f"\nstopped after step {step}: --resume goes on")
            sys.exit(128 + stop[0])
    if frames := sorted((out / "samples").glob("[0-9]*.png"), key=lambda path: int(path.stem)):
        save_gif(out / "samples.gif", frames)
    print(f"\ndone: step {max(first - 1, args.steps)}, see {out}/samples.gif, {NAME}/sample.py")


if __name__ == "__main__":
    args = parse_args()
    try:
        train(args)
    except KeyboardInterrupt:  # before the first step
        sys.exit(130)
    except torch.OutOfMemoryError:
        fail(f"out of memory: lower --batch-size ({args.batch_size}) or --size ({args.size})")
    except OSError as e:  # a full disk, a folder that cannot be written
        fail(f"{e}: free some room or change --out; a checkpoint in {args.out} is still whole")
