"""Compare the latent's gradient through a decoder at half size with that through the whole one.

    python -m lab.half_size    # a quarter of an hour on 2 busy CPU cores

To first order a step along the former lowers an energy, as the whole decoder shows it, by *cosine*
times what a step along the latter does. The cosine is a product: of the *share* of the gradient
that is coarse enough for half a latent, and of the *agreement* of both within that.

The demo autoencoder is trained, of TAESD's layout. The VAE has the layout of SD1.5's and SDXL's and
random weights: it shows what the layout does, and has not learned that the half of a latent looks
like the picture.
"""

from scripts.headless import available_device, load_host, load_pack

load_pack()

import torch  # noqa: E402

load_host(cpu=available_device("cuda") == "cpu", fp32=True)

from comfy.latent_formats import SD15  # noqa: E402

from zmagic.host.demo_model import load_autoencoder  # noqa: E402

from .command_line import described  # noqa: E402
from .half_gradients import PICTURES, conditions, means, picture  # noqa: E402
from .random_models import random_autoencoder  # noqa: E402


def main() -> None:
    parser = described("half_size", __doc__)
    parser.add_argument(
        "--side",
        type=int,
        default=64,
        help="Side of the latent, which is decoded at half of it. Default: %(default)s.",
    )
    parser.add_argument(
        "--pictures",
        type=int,
        choices=range(1, len(PICTURES) + 1),
        default=len(PICTURES),
        help="Pictures for the demo autoencoder; the large VAE gets the first. Default: all.",
    )
    options = parser.parse_args()

    side = 8 * options.side
    with torch.inference_mode():
        demo = load_autoencoder()
        paths = PICTURES[: options.pictures]
        latents = [demo.encode(picture(path, side).movedim(1, -1)) for path in paths]
    wanted = conditions(side)
    large = random_autoencoder(SD15().latent_channels)
    print("| decoder | gradient of | cosine | share | agreement |\n|---|---|---|---|---|")
    for title, vae, given in (
        ("demo autoencoder, trained", demo, latents),
        ("SD's VAE, random weights", large, [latents[0] / latents[0].std()]),
    ):
        for condition, numbers in zip(wanted, means(vae, given, wanted), strict=True):
            cells = " | ".join(f"{number:.3f}" for number in numbers)
            print(f"| {title} | {condition.name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
