"""Guide a diffusers pipeline: ``python extras/diffusers_pipeline.py`` (seconds, on the CPU).

Needs ``pip install . diffusers transformers``.

A pipeline of Stable Diffusion's classes, under a text and a style as an open_clip model sees them.
Both models are small and have random weights, so that nothing is downloaded: their numbers go
down, their pictures show nothing. For real ones replace ``small_pipeline`` by
``StableDiffusionPipeline.from_pretrained(...)`` and ``small_towers`` by
``OpenClipTowers(open_clip.create_model("ViT-B-32", "laion2b_s34b_b79k"), ...)``, the embeddings in
``sampled`` by a prompt, and the random painting in ``main`` by a picture.
"""

from collections.abc import Sequence

import open_clip
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from torch import Tensor

from zmagic.guidance import Condition, GuidanceSettings, GuidedRun, Schedule, Style, Text
from zmagic.guidance.networks.open_clip_towers import OpenClipTowers


class GuidedDDIM(DDIMScheduler):
    """DDIM that corrects every prediction of a pipeline before it steps.

    A pipeline makes its own prediction before each step; the engine asks the model again, with
    gradients, just as the pipeline did.
    """

    def follow(
        self,
        pipeline: StableDiffusionPipeline,
        conditions: Sequence[Condition],
        settings: GuidanceSettings,
    ) -> None:
        """Guide ``pipeline`` by ``conditions`` from now on; ``run`` is its latest run."""
        if self.config.prediction_type != "epsilon":
            raise ValueError(
                f"expected a model that predicts noise, got {self.config.prediction_type}"
            )
        self.pipeline, self.conditions, self.settings = pipeline, conditions, settings
        pipeline.unet.requires_grad_(False).register_forward_pre_hook(
            self._remember, with_kwargs=True
        )
        pipeline.vae.requires_grad_(False)
        pipeline.scheduler = self

    def set_timesteps(self, *args, **kwargs) -> None:
        """Begin a run: a pipeline calls this before its first step."""
        super().set_timesteps(*args, **kwargs)
        products = [*self.alphas_cumprod[self.timesteps.cpu()], self.final_alpha_cumprod]
        schedule = Schedule.variance_preserving(products)
        self.run = GuidedRun(self.conditions, self.settings, decode=self.decode, schedule=schedule)

    def step(self, model_output, timestep, sample, eta=0.0, generator=None, return_dict=True):
        """One step of DDIM by the corrected prediction, expressed as noise."""
        schedule = self.run.schedule
        sigma = schedule.sigmas[self.timesteps.tolist().index(int(timestep))]
        if self.run.guides(sigma):
            level = schedule.noise_level(sigma)

            def denoise(x: Tensor) -> Tensor:
                return (x - level.s * self._noise(x, timestep)) / level.alpha

            model_output = level.noise(sample, self.run.predict(sample, sigma, denoise))
        return super().step(
            model_output, timestep, sample, eta, generator=generator, return_dict=return_dict
        )

    def decode(self, latent: Tensor) -> Tensor:
        """Predicted clean latent ``[B, 4, h, w]`` to pictures ``[B, 3, H, W]`` in [0, 1]."""
        vae = self.pipeline.vae
        return vae.decode(latent / vae.config.scaling_factor).sample / 2.0 + 0.5

    def _remember(self, unet, args: tuple, kwargs: dict) -> None:
        """What the pipeline asks the model besides the latent and the time."""
        self._asked = kwargs

    def _noise(self, x: Tensor, timestep: Tensor) -> Tensor:
        """The model's noise in ``x``, with classifier-free guidance if the pipeline has it."""
        pipeline = self.pipeline
        copies = 2 if pipeline.do_classifier_free_guidance else 1
        parts = pipeline.unet(torch.cat([x] * copies), timestep, **self._asked)[0].chunk(copies)
        return (
            parts[0] + pipeline.guidance_scale * (parts[1] - parts[0]) if copies == 2 else parts[0]
        )


def small_pipeline() -> StableDiffusionPipeline:
    """Stable Diffusion's own classes at a small size, with random weights and no text encoder."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(16, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipeline = StableDiffusionPipeline(
        vae, None, None, unet, scheduler, None, None, requires_safety_checker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def small_towers() -> OpenClipTowers:
    """open_clip's own class at a small size, with random weights."""
    torch.manual_seed(0)
    model = open_clip.CLIP(
        embed_dim=16,
        vision_cfg={"image_size": 32, "patch_size": 8, "width": 32, "head_width": 8, "layers": 3},
        text_cfg={"width": 32, "heads": 4, "layers": 2},
    )
    return OpenClipTowers(model, open_clip.get_tokenizer("ViT-B-32"))


def conditions_of(towers: OpenClipTowers, painting: Tensor) -> list[Condition]:
    """A text, and the style of ``painting [1, 3, h, w]`` in [0, 1]."""
    prompts = towers.texts(["a watercolor of a harbor"])
    text = Text(towers.image, towers.preprocessing, prompts, torch.ones(1))
    style = Style.of(towers.after_blocks(3), towers.preprocessing, painting)
    return [Condition("text", text), Condition("style", style)]


def sampled(pipeline: StableDiffusionPipeline) -> Tensor:
    """Latents ``[1, 4, h, w]`` of one picture, always of the same noise and the same prompt."""
    prompt, nothing = torch.randn(2, 1, 8, 16, generator=torch.Generator().manual_seed(1))
    return pipeline(
        prompt_embeds=prompt,  # what pipeline.encode_prompt returns
        negative_prompt_embeds=nothing,
        num_inference_steps=8,
        generator=torch.Generator().manual_seed(2),
        output_type="latent",
    ).images


def main() -> None:
    """Print the energies of the same noise without and with guidance."""
    pipeline, painting = small_pipeline(), torch.rand(1, 3, 32, 32)
    scheduler = GuidedDDIM.from_config(pipeline.scheduler.config)
    scheduler.follow(pipeline, conditions_of(small_towers(), painting), GuidanceSettings())
    for strength in (0.0, 0.2):
        scheduler.settings = GuidanceSettings(strength=strength)
        latents = sampled(pipeline)
        energies = scheduler.run.finish(latents).final
        print(f"strength {strength}:", {name: each[0] for name, each in energies.items()})


if __name__ == "__main__":
    main()
