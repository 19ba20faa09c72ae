"""The demo model of four steps: what it learns from, and that ComfyUI loads what it learned."""

import comfy.lora
import pytest
import torch
from comfy.samplers import calculate_sigmas

from zmagic.host.demo_model import load_unet
from zmagic.lab.training import few_steps, painter
from zmagic.lab.training.diffusion import Run, tokens_of
from zmagic.lab.training.trainer import Trainer

PROMPTS = ["a photo of a man", "a photo of a woman with red hair"]


@pytest.fixture
def teacher():
    torch.manual_seed(2)
    made = painter.Painter().eval().requires_grad_(False)
    for module in made.unet.modules():  # no branch is zero, as after a training
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)):
            torch.nn.init.normal_(module.weight, std=0.5 * module.weight[0].numel() ** -0.5)
    return made


@pytest.mark.parametrize("steps", [few_steps.STEPS, few_steps.STEPS * few_steps.WITHIN])
def test_levels_are_those_of_the_scheduler_that_a_user_picks(steps):
    ours = few_steps.levels(steps)
    torch.testing.assert_close(ours, calculate_sigmas(painter.Schedule(), "sgm_uniform", steps))


def test_the_student_meets_the_teacher_at_its_levels(teacher):
    """One that finds the noise that leads there has no loss, and ends in the teacher's picture."""
    told = tokens_of(PROMPTS)
    ways = few_steps.ways_of(teacher, told)
    assert ways.shape == (2, few_steps.STEPS + 1, 16, 16, 16)
    sigmas = few_steps.levels(few_steps.STEPS)
    assert ways[:, 0].std() == pytest.approx(float(sigmas[0]), rel=0.05)
    fine = few_steps.levels(few_steps.STEPS * few_steps.WITHIN)
    torch.testing.assert_close(fine[:: few_steps.WITHIN], sigmas)

    class Perfect:
        """Finds, where the teacher came by, the noise that leads to where it came by next."""

        def __call__(self, x, time, told):
            step = int((time[0] - torch.tensor(TIMES)).abs().argmin())
            return self.noise[step][self.of(x, step)]

        noise = (ways[:, :-1] - ways[:, 1:]).movedim(1, 0) / sigmas.diff().neg().view(
            -1, 1, 1, 1, 1
        )

        def of(self, x, step):
            at = painter.Schedule().calculate_input(sigmas[step], ways[:, step])
            return (x[:, None] - at[None]).flatten(2).norm(dim=2).argmin(1)

    TIMES = [float(painter.Schedule().timestep(sigma)) for sigma in sigmas[:-1]]
    for _ in range(few_steps.STEPS):
        assert few_steps.loss(Perfect(), ways, told, 4) < 1e-6


def test_comfyui_loads_what_was_learned(teacher, tmp_path):
    torch.manual_seed(0)
    told = tokens_of(PROMPTS)
    ways = few_steps.ways_of(teacher, told)
    x, time = ways[:, 1] / 5.0, torch.tensor([500.0, 500.0])
    with torch.no_grad():
        before = teacher(x, time, told)
        plain = {key: value.clone() for key, value in teacher.unet.state_dict().items()}
    run = Run("4_steps", tmp_path, 1.0, steps=3, work=tmp_path, rate_factor=100.0)
    trainer = Trainer(run, few_steps.student_of(teacher), few_steps.LEARNING_RATE, 0.0)
    with torch.no_grad():
        torch.testing.assert_close(trainer.module(x, time, told), before)  # nothing is added yet
    student = trainer.train(lambda: few_steps.loss(trainer.module, ways, told, 2))
    for name, value in plain.items():
        kept = student.unet.state_dict()
        original = name.replace(".weight", ".parametrizations.weight.original")
        assert torch.equal(kept.get(name, kept.get(original)), value), name
    with torch.no_grad():
        learned = student(x, time, told)
    assert (learned - before).abs().max() > 1e-3

    with torch.inference_mode():
        model = load_unet()
        model.model.diffusion_model.load_state_dict(plain)
        lora = few_steps.lora_of(student.unet)
        keys = comfy.lora.model_lora_keys_unet(model.model, {})
        patches = comfy.lora.load_lora(lora, keys)
        assert len(patches) == sum(key.endswith(few_steps.LORA_UP) for key in lora)
        assert len(model.add_patches(patches)) == len(patches)
        model.patch_model()
        context = teacher.text(told)[0]
        unet = model.model.diffusion_model
        found = unet(x.to(unet.dtype), time, context=context.to(unet.dtype)).float()
    torch.testing.assert_close(found, learned, rtol=2e-2, atol=2e-3)
