"""CycleGAN: Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks.
Zhu, Park, Isola, Efros. ICCV 2017, arXiv 1703.10593.

    python cyclegan/train.py                                    drawn faces, colour <-> pencil
    python cyclegan/train.py --data path/to/folder --size 64    yours: trainA/ and trainB/ in it
    python cyclegan/train.py --paper --data horse2zebra         the paper's own scale
    python cyclegan/train.py --resume                           goes on where the last run stopped

What this paper changes: G translates images instead of noise, from X to Y without one example of a
pair; a second generator F must find the way back, so that G keeps what the image shows.
"""
import argparse
import io
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
from model import Discriminator, Generator
from torch.nn.functional import l1_loss
from torch.nn.utils import parameters_to_vector

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(ROOT))  # the repository root, for common/
from common.data import SPLITS, Data, fail, load_unpaired  # noqa: E402
from common.images import save_curves, save_gif, save_grid  # noqa: E402

NAME = "cyclegan"
PAPER = dict(          # --paper
    size=256,          # [Sec. 5.1]
    width=64,          # [App. 7.2]
    n_blocks=9,        # [App. 7.2]
    batch_size=1,      # [Sec. 4]
    steps=266_800,     # [Sec. 4]: 200 epochs; of horse2zebra, the larger set has 1,334 images
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
    add("--data", default="faces", help="faces (colour <-> pencil), horse2zebra, ..., or a folder "
        "that holds trainA/ and trainB/, perhaps testA/ and testB/")
    add("--data-root", default=str(ROOT / "data"), help="where downloaded sets are kept")
    add("--out", default=f"runs/{NAME}", help="the folder of this run")
    add("--size", type=int, default=32, choices=(16, 32, 64, 128, 256, 512),
        help="height and width; paper: 256 or 128 [Sec. 5.1]")
    add("--width", type=number(int, 1), default=32, help="channels at the image; 64 [App. 7.2]")
    add("--n-blocks", type=number(int, 1), default=3, help="residual blocks of G; paper: 9 for 256 "
        "px, 6 for 128 [App. 7.2]")
    add("--batch-size", type=number(int, 1), default=1, help="images of X and of Y a step [Sec. 4]")
    add("--lambda-cycle", type=number(float, 0), default=10.0, help="lambda of Eq. 3 [Sec. 4]")
    add("--lambda-identity", type=number(float, 0), default=0.0, help="weight of the identity "
        "loss, in lambdas; paper: 0.5 from paintings to photos, else 0 [Sec. 5.2]")
    add("--pool", type=number(int, 1), default=50, help="fakes kept for each D [Sec. 4]")
    add("--lr", type=number(float, 0), default=2e-4, help="Adam's learning rate, which falls to 0 "
        "over the second half of --steps [Sec. 4]")
    add("--beta1", type=number(float, 0, 1), default=0.5, help="Adam's beta1 [authors' code]")
    add("--steps", type=number(int, 1), default=3000, help="updates of G; an epoch is the larger "
        "set's images / batch size; paper: 200 epochs [Sec. 4]")
    add("--log-every", type=number(int, 1), default=25, help="steps between rows of log.csv")
    add("--sample-every", type=number(int, 1), default=100, help="steps between sample grids")
    add("--save-every", type=number(int, 1), default=250, help="steps between checkpoints")
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


def augment(x: torch.Tensor, size: int) -> torch.Tensor:
    """Of each image (n, c, h, w) its own random window, mirrored or not. [authors' code]"""
    n, places = len(x), x.shape[-1] - size + 1
    top, left = torch.randint(places, (2, n)).tolist()
    x = torch.stack([x[i, :, top[i]:top[i] + size, left[i]:left[i] + size] for i in range(n)])
    mirrored = (torch.rand(n, 1, 1, 1) < 0.5).to(x.device)
    return torch.where(mirrored, x.flip(3), x)


class Pool:
    """The fakes that a D is shown: half are from earlier steps, against oscillation. [Sec. 4]

    Until it is full, a fake is kept and returned. Later, with probability 1/2, it takes the place
    of a random kept one, which is returned; else it is returned and not kept. [authors' code]
    """

    def __init__(self, size: int, device: torch.device):
        self.size, self.device = size, device
        self.images: list[torch.Tensor] = []

    def query(self, x: torch.Tensor) -> torch.Tensor:
        shown = []
        for image in x.detach():
            if len(self.images) < self.size:
                self.images.append(image.clone())
            elif torch.rand(()) < 0.5:
                i = torch.randint(len(self.images), ()).item()
                self.images[i], image = image.clone(), self.images[i]
            shown.append(image)
        return torch.stack(shown)

    def state_dict(self) -> dict:
        return {"images": self.images}

    def load_state_dict(self, state: dict) -> None:
        self.images = [image.to(self.device) for image in state["images"]]


def learning_rate(lr: float, step: int, steps: int) -> float:
    """lr for 100 epochs, then linearly towards 0 for 100. [Sec. 4]

    Departure: an epoch is a 200th of the run here, of at least one step, whatever the data.
    """
    epoch = (step - 1) * 200 // max(steps, 200)
    return lr * min(1.0, (200 - epoch) / 100)


def d_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """(E[(D_Y(y) - 1)^2] + E[D_Y(G(x))^2]) / 2, from scores (n, 1, h, w). [Sec. 4, App. 7.1]"""
    return ((real - 1).square().mean() + fake.square().mean()) / 2


def g_loss(fake: torch.Tensor) -> torch.Tensor:
    """E[(D_Y(G(x)) - 1)^2], from scores (n, 1, h, w). [Sec. 4]"""
    return (fake - 1).square().mean()


def held_out(load: Callable, X: Data, Y: Data, size: int) -> tuple[str, torch.Tensor, torch.Tensor]:
    """Up to eight images of each set, of the split that is named: of testA/ and testB/, if any."""
    tests = [Path(X.name, f"{part}A") for part in SPLITS["test"]]
    is_folder = Path(X.name).is_absolute()
    split = "train" if is_folder and not any(map(Path.is_dir, tests)) else "test"
    x, y = load(size, split=split)
    if (x.channels, y.channels) != (X.channels, Y.channels):
        fail(f"{X.name}: looked for test images with {X.channels} and {Y.channels} channels, as in "
             f"training, and saw {x.channels} and {y.channels}: convert them")
    n = min(8, len(x), len(y))
    return split, x[:n], y[:n]


@torch.no_grad()
def sample(G: Generator, F: Generator, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Rows x | G(x) | F(G(x)) | y | F(y) | G(F(y)), as (6n, c, h, w). [Fig. 4]"""
    x_fake, y_fake = F(y), G(x)
    columns = x, y_fake, F(y_fake), y, x_fake, G(x_fake)
    c = max(len(x[0]), len(y[0]))  # a grey one beside one in colour
    return torch.stack([column.expand(-1, c, -1, -1) for column in columns], 1).flatten(0, 1)


def train(args: argparse.Namespace) -> None:
    out, device = Path(args.out), pick_device(args.device)
    is_paper = all(getattr(args, name) == value for name, value in PAPER.items())
    scale = "the paper's scale" if is_paper else f"a small setting; --paper: {SCALE}"
    print(f"{NAME}: {args.data} at {args.size}x{args.size} on {device}, {scale}", flush=True)
    load = partial(load_unpaired, args.data, root=args.data_root, device=device,
                   workers=args.workers, skip_bad=args.skip_bad)
    X, Y = load(round(args.size * 286 / 256))  # room for random windows [authors' code]
    if args.lambda_identity and X.channels != Y.channels:
        fail(f"--lambda-identity: {args.data} has images of {X.channels} and {Y.channels} channels")
    if not args.resume:
        split, x_fixed, y_fixed = held_out(load, X, Y, args.size)  # one set through the run

    torch.manual_seed(args.seed)
    G = Generator(X.channels, Y.channels, args.width, args.n_blocks).to(device)
    F = Generator(Y.channels, X.channels, args.width, args.n_blocks).to(device)
    D_X = Discriminator(args.size, X.channels, args.width).to(device)
    D_Y = Discriminator(args.size, Y.channels, args.width).to(device)
    pool_x, pool_y = Pool(args.pool, device), Pool(args.pool, device)
    nets = {"G": G, "F": F, "D_X": D_X, "D_Y": D_Y}
    opt_g = torch.optim.Adam([*G.parameters(), *F.parameters()], args.lr, (args.beta1, 0.999))
    opt_d = torch.optim.Adam([*D_X.parameters(), *D_Y.parameters()], args.lr, (args.beta1, 0.999))
    settings = {k: v for k, v in vars(args).items() if k not in ("out", "resume")}
    settings["data"] = X.name  # of a folder, its absolute path
    parts = {**nets, "opt_g": opt_g, "opt_d": opt_d, "pool_x": pool_x, "pool_y": pool_y}

    path, log = out / "ckpt.pt", out / "log.csv"
    first, log_bytes = 1, 0
    if args.resume:
        ckpt = load_checkpoint(path)
        first, log_bytes = ckpt["step"] + 1, ckpt["log_bytes"]
        split, x_fixed, y_fixed = (ckpt[k] for k in ("split", "x_fixed", "y_fixed"))
        x_fixed, y_fixed = x_fixed.to(device), y_fixed.to(device)
        try:
            if ckpt["args"]["size"] != args.size:  # convolutions would take it, the pool would not
                raise ValueError
            for name, part in parts.items():
                part.load_state_dict(ckpt[name])
        except (RuntimeError, ValueError):
            fail(f"{path} does not fit: a run keeps its size, width, n-blocks and image channels")
        for group in opt_g.param_groups + opt_d.param_groups:
            group["betas"] = args.beta1, 0.999  # flags given now override
    batches_x, batches_y = (data.batches(args.batch_size, args.seed, first - 1) for data in (X, Y))

    def save(step: int, **losses: torch.Tensor) -> None:
        check_finite(step, path, **losses, **{name: parameters_to_vector(net.parameters())
                                              for name, net in nets.items()})
        save_checkpoint(path, {
            "paper": NAME, "step": step, "log_bytes": log.stat().st_size, "x_fixed": x_fixed,
            "y_fixed": y_fixed, "args": settings, "channels": [X.channels, Y.channels],
            "split": split,
            **{name: part.state_dict() for name, part in parts.items()}})

    (out / "samples").mkdir(parents=True, exist_ok=True)
    with open(log, "a" if args.resume else "w") as f:
        f.truncate(min(f.tell(), log_bytes))  # rows later than the checkpoint will come again
        if f.tell() == 0:
            f.write("step,loss_d,loss_g,cycle,D_Y(y),D_Y(G(x))\n")
    save(first - 1)  # from here on a run that is killed resumes

    stop: list[int] = []  # a first Ctrl-C or SIGTERM lets the step end, a second one does not
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, lambda n, _: (stop.append(n), signal.signal(n, signal.SIG_DFL)))
    began = time.monotonic()
    for step in range(first, args.steps + 1):
        torch.manual_seed(args.seed * 1_000_003 + step)  # a step depends on (seed, step) alone
        x, y = augment(next(batches_x), args.size), augment(next(batches_y), args.size)
        for group in opt_g.param_groups + opt_d.param_groups:
            group["lr"] = learning_rate(args.lr, step, args.steps)

        # Update D_X and D_Y. Departure: the authors' code updates G and F first
        x_fake, y_fake = F(y), G(x)
        real_x, fake_x = D_X(x), D_X(pool_x.query(x_fake))
        real_y, fake_y = D_Y(y), D_Y(pool_y.query(y_fake))
        loss_d = d_loss(real_x, fake_x) + d_loss(real_y, fake_y)
        opt_d.zero_grad()
        loss_d.backward()
        opt_d.step()

        # Update G and F: Eq. 3
        D_X.requires_grad_(False)
        D_Y.requires_grad_(False)
        cycle = l1_loss(F(y_fake), x) + l1_loss(G(x_fake), y)  # Eq. 2
        loss_g = g_loss(D_Y(y_fake)) + g_loss(D_X(x_fake)) + args.lambda_cycle * cycle
        if args.lambda_identity:  # Sec. 5.2
            identity = l1_loss(G(y), y) + l1_loss(F(x), x)
            loss_g = loss_g + args.lambda_identity * args.lambda_cycle * identity
        opt_g.zero_grad()
        loss_g.backward()
        opt_g.step()
        D_X.requires_grad_(True)
        D_Y.requires_grad_(True)

        # Report
        if step % args.log_every == 0:
            check_finite(step, path, loss_d=loss_d, loss_g=loss_g)
            values = [v.mean().item() for v in (loss_d, loss_g, cycle, real_y, fake_y)]
            with open(log, "a") as f:
                print(step, *(f"{v:.5f}" for v in values), sep=",", file=f)
            speed = (step - first + 1) / (time.monotonic() - began)  # steps per second
            eta = timedelta(seconds=round((args.steps - step) / speed))
            show("step {}/{}  loss_d {:.3f}  loss_g {:.3f}  cycle {:.3f}  D_Y(y) {:.2f}  D_Y(G(x)) "
                 "{:.2f}".format(step, args.steps, *values)
                 + f"  {speed * len(x):.1f} images/s  ETA {eta}")
        if step % args.sample_every == 0 or step == args.steps:
            save_grid(out / f"samples/{step:06d}.png", sample(G, F, x_fixed, y_fixed),
                      n_cols=6)
            save_curves(out / "losses.png", log)
        if step % args.save_every == 0 or step == args.steps or stop:
            save(step, loss_d=loss_d, loss_g=loss_g)
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
