"""Figures of the StyleGAN paper, from a checkpoint of stylegan/train.py.

    python stylegan/sample.py                          from runs/stylegan/ckpt.pt, beside it
    python stylegan/sample.py --ckpt path/to/ckpt.pt --out figures --psi 0.5
    python stylegan/sample.py --ppl 1000               the path length too, of 1,000 pairs
    python stylegan/sample.py --n 10000 --each pngs    single files, for the usual FID tools

All by G's averaged weights. Figures are truncated, psi = 0.7 as in Fig. 2; single files and path
lengths are not, as in the paper's tables.
"""
import argparse
import copy
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from model import Generator, n_layers, sample_noise

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(ROOT))  # the repository root, for common/
from common.data import fail  # noqa: E402
from common.images import grid, save_gif, save_grid, write_image  # noqa: E402

PSI = (1, 0.7, 0.5, 0, -0.5, -1)  # [Fig. 8]
BRIGHT = 0.2  # of 2: the deviation that is white in fig4.png [ours]


def load_generator(path: Path) -> tuple[Generator, dict]:
    """G as averaged, and its checkpoint. No flag of the training run is needed again."""
    try:
        ckpt = torch.load(path, map_location="cpu", weights_only=True)
        args = ckpt["args"]
        if ckpt["paper"] != "stylegan":
            raise ValueError(ckpt["paper"])
        G = Generator(args["size"], ckpt["channels"], args["z_dim"], args["w_dim"],
                      args["fmap_base"], args["fmap_max"], args["mapping_layers"], args["config"],
                      args["noise_lr"])
        G.load_state_dict(ckpt["G_ema"])
    except FileNotFoundError:
        fail(f"no checkpoint at {path.resolve()}: run stylegan/train.py first, or give --ckpt")
    except Exception as e:  # torch's readers raise many kinds
        fail(f"{path.resolve()} is damaged, or no checkpoint of stylegan ({type(e).__name__})")
    return G.eval().requires_grad_(False), ckpt


def sample_z(n: int, z_dim: int) -> torch.Tensor:
    """z (n, z_dim), standard normal, as in train.py."""
    return torch.randn(n, z_dim)


def paint(G: Generator, ckpt: dict, w: torch.Tensor,
          noise: list[torch.Tensor] | None = None) -> torch.Tensor:
    """Pictures of styles w (n, n_layers, w_dim), as the run has grown, as large as it will grow.
    noise: a map (1, 1, h, w) for each layer, by default G's own."""
    x = [G.synthesis(part, noise, ckpt["size"], ckpt["alpha"]) for part in w.split(8)]
    return F.interpolate(torch.cat(x), scale_factor=G.size // ckpt["size"])


def generate(G: Generator, ckpt: dict, n: int, seed: int = 0, psi: float = 1.0) -> torch.Tensor:
    """n images (n, c, h, w), on new noise each, a function of (G, n, seed, psi)."""
    torch.manual_seed(seed)
    w = G.styles(G.mapping(sample_z(n, ckpt["args"]["z_dim"])), psi=psi)
    return torch.cat([paint(G, ckpt, one, sample_noise(1, ckpt["size"])) for one in w.split(1)])


def bands(n_layers: int) -> tuple[int, int]:
    """Where the middle and the fine layers begin: of 18 at 16x16 and at 64x64 [Fig. 3]; of fewer
    so that there are some of each [ours]."""
    return {4: (1, 2), 6: (2, 4), 8: (4, 6)}.get(n_layers, (4, 8))


def mixed(w_a: torch.Tensor, w_b: torch.Tensor) -> torch.Tensor:
    """Fig. 3's styles (6, 5, n_layers, w_dim): row i is w_a[i], but in its coarse (i = 0, 1, 2),
    middle (3, 4) or fine (5) layers w_b[j]."""
    middle, fine = bands(w_a.shape[1])
    layers = [slice(0, middle)] * 3 + [slice(middle, fine)] * 2 + [slice(fine, None)]
    w = w_a[:, None].repeat(1, len(w_b), 1, 1)
    for row, part in zip(w, layers, strict=True):
        row[:, part] = w_b[:, part]
    return w


def stochastic(G: Generator, ckpt: dict, w: torch.Tensor, n: int = 100) -> torch.Tensor:
    """Fig. 4, six pictures for each w: on G's own noise, on four others, and of n the deviation of
    the brightness, black where noise changes nothing."""
    rows = []
    for one in w.split(1):
        x = torch.cat([paint(G, ckpt, one, sample_noise(1, ckpt["size"])) for _ in range(n)])
        deviation = x.mean(1, keepdim=True).std(0, keepdim=True) / BRIGHT * 2 - 1
        rows += [paint(G, ckpt, one), x[:4], deviation.expand(-1, x.shape[1], -1, -1)]
    return torch.cat(rows)


def noise_ablation(G: Generator, ckpt: dict, w: torch.Tensor) -> torch.Tensor:
    """Fig. 5, four pictures for each w: noise in all layers, in none, in the fine, in the rest."""
    noise, fine = G.fixed_noise(), bands(n_layers(ckpt["size"]))[1]
    choices = [range(G.n_layers), (), range(fine, G.n_layers), range(fine)]
    columns = [paint(G, ckpt, w, [maps * (i in on) for i, maps in enumerate(noise)])
               for on in choices]
    return torch.stack(columns, 1).flatten(0, 1)


def slerp(a: torch.Tensor, b: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """From a to b (n, z_dim) along a great circle of the unit sphere. [Eq. 2]"""
    a, b = F.normalize(a), F.normalize(b)
    cos = (a * b).sum(1, keepdim=True)
    return a * (t * cos.acos()).cos() + F.normalize(b - cos * a) * (t * cos.acos()).sin()


def path_length(G: Generator, ckpt: dict, n: int, space: str, full: bool, eps: float = 1e-4
                ) -> float:
    """E[d(G(at t), G(at t + eps)) / eps^2] between n pairs in "z" [Eq. 2] or "w" [Eq. 3], t from
    U(0, 1) or, if not full, 0; without the lowest and highest hundredth [authors' code]. float64.

    Departure: d is no VGG's distance but the mean square difference of pixels in [-1, 1], at 64x64
    at most. So it compares runs on one data set, not with the paper's table.
    """
    G, d = copy.deepcopy(G).double(), []
    for _ in range(n):
        z = sample_z(2, ckpt["args"]["z_dim"]).double()
        t = torch.rand(1, 1).double() * full
        if space == "z":
            w = G.mapping(torch.cat([slerp(z[:1], z[1:], t), slerp(z[:1], z[1:], t + eps)]))
        else:
            w = torch.lerp(*G.mapping(z)[:, None], torch.cat([t, t + eps]))
        x = paint(G, ckpt, G.styles(w))
        x = F.avg_pool2d(x, max(1, G.size // 64))
        d.append((x[0] - x[1]).square().mean() / eps ** 2)
    d = torch.stack(d).sort().values
    return d[n // 100:n - n // 100].mean().item()


def main(argv: list[str] | None = None) -> None:
    p = argparse.ArgumentParser(description=__doc__.split("\n\n")[0],
                                formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    p.error = fail
    p.add_argument("--ckpt", type=Path, default="runs/stylegan/ckpt.pt", help="of the run")
    p.add_argument("--out", type=Path, help="folder for the figures; by default beside the ckpt")
    p.add_argument("--psi", type=float, help="truncation; by default 0.7, and 1 for --each")
    p.add_argument("--ppl", type=int, default=0, help="pairs for the path length; paper: 100,000")
    p.add_argument("--n", type=int, default=64, help="how many samples for --each")
    p.add_argument("--each", type=Path, help="folder for --n single PNGs, instead of the figures")
    p.add_argument("--seed", type=int, default=0, help="of z and the noise")
    args = p.parse_args(argv)
    if args.n < 1:
        fail(f"--n {args.n}: looked for 1 or more")
    if args.ppl < 0:
        fail(f"--ppl {args.ppl}: looked for 0 or more")
    G, ckpt = load_generator(args.ckpt)
    if args.each:
        args.each.mkdir(parents=True, exist_ok=True)
        psi = 1.0 if args.psi is None else args.psi
        for i, x in enumerate(generate(G, ckpt, args.n, args.seed, psi)):
            write_image(args.each / f"{i:06d}.png", x)
        return
    out, psi = args.out or args.ckpt.parent / "figures", 0.7 if args.psi is None else args.psi
    out.mkdir(parents=True, exist_ok=True)

    def styles(n: int, psi: float = psi) -> torch.Tensor:
        """Of the first n z of this seed: the same faces in all figures."""
        torch.manual_seed(args.seed)
        return G.styles(G.mapping(sample_z(64, ckpt["args"]["z_dim"])[:n]), psi=psi)

    def save(name: str, x: torch.Tensor, n_cols: int, captions: list[str] | None = None) -> None:
        save_grid(out / name, x, n_cols, captions=captions, scale=2)

    # Fig. 2: with G's own noise, as in the run's own grids
    save("samples.png", paint(G, ckpt, G.styles(G.mapping(ckpt["z_fixed"]), psi=psi)), 8)

    # Fig. 3: sources B above, A at the left
    w_a, w_b = styles(11).split([6, 5])
    x_a, x_b = paint(G, ckpt, w_a), paint(G, ckpt, w_b)
    rows = paint(G, ckpt, mixed(w_a, w_b).flatten(0, 1)).unflatten(0, (6, 5))
    rows = torch.cat([torch.cat([torch.ones_like(x_a[:1]), x_b])[None],
                      torch.cat([x_a[:, None], rows], 1)])
    save("fig3.png", rows.flatten(0, 1), 6, ["B", *["coarse"] * 3, *["middle"] * 2, "fine"])

    # Figs. 4 and 5: noise
    if G.epilogues[0].noise is not None:
        save("fig4.png", stochastic(G, ckpt, styles(3)), 6)
        save("fig5.png", noise_ablation(G, ckpt, styles(4)), 4)

    # Fig. 8: truncation, a column for each psi
    x = torch.stack([paint(G, ckpt, styles(6, psi)) for psi in PSI], 1)
    save("fig8.png", x.flatten(0, 1), len(PSI))

    # From each of six points in W to the next, eight times
    w = styles(48).unflatten(0, (6, 8))
    frames = [torch.lerp(w[i], w[(i + 1) % 6], t / 10) for i in range(6) for t in range(10)]
    film = [grid(paint(G, ckpt, frame), 4, scale=2) for frame in frames]
    save_gif(out / "interpolation.gif", film, hold=0.12)
    print(f"wrote {', '.join(sorted(path.name for path in out.iterdir()))} to {out}")
    if args.ppl:
        print(f"path length, {args.ppl} pairs, pixels:", ", ".join(
            f"{space} {'full' if full else 'end'} " +
            f"{path_length(G, ckpt, args.ppl, space, full):.1f}"
            for space in "zw" for full in (True, False)))


if __name__ == "__main__":
    try:
        main()
    except OSError as e:  # a full disk, a folder that cannot be written
        fail(f"{e}: free some room, or change --out or --each")
