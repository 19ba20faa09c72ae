"""Installs the engine into a MODEL: wrappers around the host's sampling, one state per run.

The prediction is corrected where every sampler, scheduler and guider of the host passes: behind
PREDICT_NOISE. The host's solver, inpaint mask and multistep history see a denoised prediction
like any other.
"""

import logging
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import comfy.model_management
import comfy.sd
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..guidance.conditions import Condition
from ..guidance.noise_search import NoiseSearch
from ..guidance.trace import Trace
from ..guidance.wording import one_line
from .about import about
from .decoders import choose_decoder
from .last_runs import LastRuns
from .networks import patchers_of
from .noise_search import SearchedNoise
from .run import KEY, Attachment, HostRun, HostSettings

__all__ = ["HostSettings", "attach", "last_runs", "unguided", "with_noise_search"]

log = logging.getLogger(__name__)

# The run whose models are being loaded: the host does not tell the wrapper that it asks then.
_LOADING: ContextVar["HostRun | None"] = ContextVar("zmagic_loading", default=None)


def attach(
    model,
    conditions: tuple[Condition, ...],
    settings: HostSettings | None = None,
    vae: comfy.sd.VAE | None = None,
    on_finish: Callable[[Trace], None] | None = None,
    on_look: Callable[[str], None] | None = None,
    steps: int | None = None,
):
    """Return a clone of ``model`` (a ModelPatcher) whose sampling satisfies ``conditions``.

    A model that is guided already gets the new conditions behind its own: one engine balances
    them all. Settings and VAE given here win over those attached before.

    Args:
        on_finish: a function that is called with the trace at the end of every run.
        on_look: one that is called with a line of text after every guided evaluation.
        steps: how many steps a whole sampling has, if runs of this model make its first ones
            alone; None: as their noise levels say.

    Raises:
        ValueError: the decoder that the settings ask for cannot be had.
    """
    before: Attachment | None = model.get_attachment(KEY)
    if before is not None:
        conditions = before.conditions + conditions
        settings = settings or before.settings
        vae = vae or before.vae
    settings = settings or HostSettings()
    finishers = (before.on_finish if before else ()) + ((on_finish,) if on_finish else ())
    lookers = (before.on_look if before else ()) + ((on_look,) if on_look else ())
    decoder = choose_decoder(settings.decoder, vae, model.get_model_object("latent_format"))
    runs_before = (before.runs, *before.runs_before) if before else ()
    attachment = Attachment(
        conditions,
        settings,
        vae,
        decoder,
        finishers,
        lookers,
        runs_before=runs_before,
        steps=steps,
    )

    return _with(model, attachment)


def with_noise_search(guided, search: NoiseSearch, on_noise: Callable[[Tensor], None]):
    """Return a clone of a ``guided`` model that does not guide: it searches its noise.

    Each of its runs looks at pictures of several noises, and then samples the best one as if
    nothing were there.

    Args:
        search: what the search may take.
        on_noise: a function that is called with the noise that was found.
    """
    attachment: Attachment = guided.get_attachment(KEY)
    return _with(guided, replace(attachment, search=search, on_noise=on_noise))


def unguided(model, on_finish: Callable[[Trace], None]):
    """Return a clone of a guided ``model`` that samples as if it were not guided.

    Its run measures the energies of the finished picture, and of nothing before.

    Args:
        on_finish: a function that is called with the trace at the end of every run.
    """
    guided: Attachment = model.get_attachment(KEY)
    guidance = replace(guided.settings.guidance, strength=0.0)
    settings = replace(guided.settings, guidance=guidance)
    parts = (guided.conditions, settings, guided.vae, guided.decoder, (on_finish,))
    return _with(model, Attachment(*parts, measure_steps=False))


def _with(model, attachment: Attachment):
    """A clone of ``model`` with the wrappers that do what the attachment says."""
    model = model.clone()
    model.set_attachments(KEY, attachment)
    # The host loads these with the model, so that nothing has to be loaded inside a step.
    used = [network for c in attachment.conditions for network in c.networks]
    loaded = [*attachment.decoder.patchers, *patchers_of(used)]
    patchers = {id(patcher): patcher for patcher in loaded}  # energies share networks
    model.set_additional_models(KEY, list(patchers.values()))
    hooks = _Hooks(attachment)
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, hooks.outer_sample),
        (WrappersMP.PREDICT_NOISE, hooks.predict_noise),
        (WrappersMP.PREPARE_SAMPLING, hooks.prepare_sampling),
    ):
        model.remove_wrappers_with_key(kind, KEY)
        model.add_wrapper_with_key(kind, KEY, wrapper)
    return model


def last_runs(guided) -> LastRuns | None:
    """The last runs of a guided MODEL or GUIDER, and of those that were made of it by ``attach``.

    None of one that is not guided.
    """
    model = getattr(guided, "model_patcher", guided)
    attachment = model.get_attachment(KEY)
    return None if attachment is None else attachment.runs


@dataclass(frozen=True)
class _Hooks:
    """The wrappers; the state of a run lives on the run's own guider."""

    attachment: Attachment

    @property
    def _runs(self) -> tuple[LastRuns, ...]:
        return self.attachment.runs, *self.attachment.runs_before

    def __deepcopy__(self, memo: dict) -> Self:
        """Return this object: other packs deep-copy the model options, and these hold weights."""
        return self

    def prepare_sampling(self, executor, model, noise_shape, conds, *args, **kwargs):
        """Ask the host for the memory of a backward, too: its estimate is that of a forward."""
        run = _LOADING.get()
        if run is not None and run.engine.settings.strength > 0.0:
            times = run.memory.times(model.model, noise_shape)
            noise_shape = [noise_shape[0] * times, *noise_shape[1:]]
        return executor(model, noise_shape, conds, *args, **kwargs)

    def outer_sample(self, executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
        """Make the run's state, sample, report, and drop the state whatever happens."""
        parts = len(kwargs.get("latent_shapes") or [None])
        if parts > 1:
            raise ValueError(
                "Z-Magic guides one latent image: expected a plain latent, got a packed one of "
                f"{parts} parts (audio-video model)"
            )
        guider = executor.class_obj
        seed = _seed(args, kwargs)
        run = HostRun(self.attachment, guider, noise, sigmas, seed)
        run.engine.trace.about = about(guider.model_patcher, sampler, len(sigmas) - 1, seed)
        outer = getattr(guider, KEY, None)  # of a sampling inside a sampling
        setattr(guider, KEY, run)
        if self.attachment.search is not None:
            sampler = SearchedNoise(sampler, run)
        loading = _LOADING.set(run)
        try:
            samples = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
            self._report(run, samples)
        except BaseException:  # an interruption, too
            run.progress.stopped()
            raise
        finally:
            _LOADING.reset(loading)
            if outer is None:
                delattr(guider, KEY)
            else:
                setattr(guider, KEY, outer)
        return samples

    def predict_noise(self, executor, x, timestep, model_options=None, seed=None):
        """Return the corrected prediction of one evaluation."""
        run: HostRun | None = getattr(executor.class_obj, KEY, None)
        model_options = {} if model_options is None else model_options
        if run is None:  # called by another node outside a sampling run
            return executor(x, timestep, model_options, seed)
        return run.predict(executor, x, timestep, model_options, seed)

    def _report(self, run: "HostRun", samples: Tensor) -> None:
        """Tell what happened; the samples are there, so nothing in here may lose them."""
        trace = run.engine.trace
        for tell in (
            lambda: run.finish(samples),
            *(partial(runs.keep, samples, trace) for runs in self._runs),
            lambda: log.info("%s\nZ-Magic: %s", trace.summary(), trace.words()),
            *(lambda told=told: told(trace) for told in self.attachment.on_finish),
        ):
            try:
                tell()
            except comfy.model_management.InterruptProcessingException:
                raise
            except Exception as error:
                log.debug("the report failed", exc_info=True)
                run.engine.warn(
                    "the picture is done, but its report is not complete: "
                    f"{type(error).__name__}: {one_line(error)}"
                )


def _seed(args: tuple, kwargs: dict) -> int:
    """The seed; by position the host passes denoise_mask, callback, disable_pbar, seed."""
    seed = kwargs.get("seed", args[3] if len(args) > 3 else None)
    return 0 if seed is None else int(seed)
