"""Text: the picture should show what prompts say, and not what negative prompts say.

Cosine distance of CLIP's two towers (Radford et al., "Learning Transferable Visual Models From
Natural Language Supervision", ICML 2021), the text energy of FreeDoM and Z-Magic.
"""

import copy
import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..embeddings import Targets
from ..pictures.crops import Crops
from ..pictures.preprocessing import Preprocessing
from ..pictures.regions import seen

__all__ = ["Text"]


class Text:
    """``E = sum_p |w_p| (1 - sign(w_p) cos(f(image), t_p)) / sum_p |w_p|``, ``f`` the image tower.

    A negative weight pushes away. Unit: 1 - cosine, between 0 and 2.

    With n views E is their mean: the whole picture and n - 1 random crops in perspective, new in
    every step and fixed during it, the same for every picture of a batch. For the finished image
    it is the energy of the whole picture.

    Args:
        network: the image tower, ``[B, 3, h, w] -> [B, D]``.
        preprocessing: the way from a picture to the tower's input.
        targets: the embeddings ``t_p`` of the prompts, ``[P, D]``, or ``[B, P, D]``: for each
            picture its own.
        weights: the weights ``w_p`` of the prompts, ``[P]``, relative to each other.
        views: the number n of views, >= 1.
        least_crop: the side of the smallest crop, as a fraction of the whole view, in (0, 1].
        warnings: sentences about the prompts for the report of a run.

    Raises:
        ValueError: an argument is outside its range, or the weights do not fit the targets.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Tensor],
        preprocessing: Preprocessing,
        targets: Tensor,
        weights: Tensor,
        views: int = 1,
        least_crop: float = 0.6,
        warnings: Sequence[str] = (),
    ):
        if views < 1:
            raise ValueError(f"expected at least 1 view, got {views}")
        if not 0.0 < least_crop <= 1.0:
            raise ValueError(f"the smallest crop must be in (0, 1], got {least_crop:g}")
        self.network = network
        self.preprocessing = preprocessing
        self.targets = Targets(targets, weights)
        self.views = views
        self.least_crop = least_crop
        self._seed: int | None = None
        self._warnings = tuple(warnings)
        self._crops: Crops | None = None

    def begin_run(self) -> "Text":
        """Return this energy with fresh state; see RunEnergy."""
        return copy.copy(self)

    def draw_from(self, seed: int) -> None:
        """Take the seed of the coming step's crops."""
        self._seed = seed

    def begin_step(self, step: int | None) -> None:
        """Draw the crops of this step; None: the finished image, without crops."""
        self._crops = None
        if step is not None and self.views > 1:
            seed = step if self._seed is None else self._seed
            self._crops = Crops(self.views - 1, self.least_crop, self._mixed(seed))

    def warnings(self) -> list[str]:
        """Sentences about the ends of prompts that are not read; see RunEnergy."""
        return list(self._warnings)

    @property
    def networks(self) -> tuple:
        """The networks that the energy runs on; see the Energy protocol."""
        return (self.network,)

    def __call__(self, image: Tensor, region: Tensor | None = None) -> Tensor:
        """The energy of ``image [B, 3, H, W]``, ``[B]``; see the Energy protocol."""
        views = [seen(image, region, self.preprocessing)]
        if self._crops is not None:
            views += self._crops(image, region, self.preprocessing)
        embeddings = self.network(torch.cat(views)).unflatten(0, (len(views), -1))
        return self.targets.distance(embeddings).mean(0)

    def _mixed(self, seed: int) -> int:
        """The seed for these prompts, so that two energies do not look at the same crops."""
        digest = hashlib.sha256(f"{seed}".encode())
        if self.targets.directions.ndim == 2:  # the same for every picture, alone or in a batch
            for tensor in (self.targets.directions, self.targets.shares):
                digest.update(tensor.cpu().contiguous().numpy().tobytes())
        return int.from_bytes(digest.digest()[:7])  # seeds have 64 bits, one for the sign
