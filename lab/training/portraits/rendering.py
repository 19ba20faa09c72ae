"""Path tracing with Mitsuba 3: picture and class mask.

The picture is traced at twice its size without a background, its light is smoothed, the background
is put behind it, and it is developed. The package mitsuba is imported where a renderer is made and
nowhere else.
"""

from dataclasses import dataclass

import numpy as np

from .coloring import tint
from .meshes import Mesh
from .people import Identity, Sitting
from .photograph import backdrop, develop, exposure
from .scene import CLASS, Camera, Part, Portrait
from .smoothing import smooth

__all__ = ["MATERIALS", "Renderer", "Traced"]

OVERSAMPLING = 2  # picture elements per side and pixel
MASK_RAYS = 3  # rays per side and pixel; the most frequent class wins
FEATURE_SAMPLES = 3
PATH_DEPTH = 3
MATERIALS: dict[str, dict[str, float]] = {
    "skin": {"roughness": 0.48, "specular": 0.40},
    "eye": {"roughness": 0.06, "specular": 0.60},
    "hair": {"roughness": 0.60, "specular": 0.15},
    "cloth": {"roughness": 0.85, "specular": 0.20},
    "gloss": {"roughness": 0.22, "specular": 0.60},
}
KEY_DISTANCE = 2.3  # m


@dataclass(frozen=True, eq=False)
class Traced:
    """A traced portrait without its colors, at twice the size of the picture.

    Args:
        light: linear colors [2 size, 2 size, 3], times their opacity.
        opacity: [2 size, 2 size, 1], 0 where the background is seen.
        labels: classes [2 size, 2 size].
        mask: classes of the picture [size, size], uint8.
    """

    light: np.ndarray
    opacity: np.ndarray
    labels: np.ndarray
    mask: np.ndarray


class Renderer:
    """Mitsuba with one variant.

    Args:
        variant: Mitsuba's variant, its arithmetic, for the whole process.
        size: pixels per side of a picture.
        samples: paths per picture element, of which a pixel has four.

    Raises:
        ImportError: the package mitsuba is not installed.
    """

    def __init__(self, variant: str, size: int, samples: int) -> None:
        import mitsuba

        mitsuba.set_variant(variant)
        mitsuba.set_log_level(mitsuba.LogLevel.Error)
        self.mitsuba = mitsuba
        self.size = size
        self.samples = samples

    def traced(self, portrait: Portrait, person: Identity, sitting: Sitting) -> Traced:
        """The portrait before it gets its colors."""
        scene = self._scene(portrait, sitting)
        side = self.size * OVERSAMPLING
        beauty = self._trace(
            scene, portrait.camera, side, self.samples, sitting.seed,
            {"type": "path", "max_depth": PATH_DEPTH, "hide_emitters": True},
        )  # fmt: skip
        features = self._trace(
            scene, portrait.camera, side, FEATURE_SAMPLES, sitting.seed,
            {"type": "aov", "aovs": "a:albedo,n:sh_normal,d:depth"},
        )  # fmt: skip
        labels = self._labels(scene, portrait)
        fine = labels.reshape(self.size, MASK_RAYS, self.size, MASK_RAYS)
        mask = _majority(fine.transpose(0, 2, 1, 3).reshape(self.size, self.size, -1))
        pixel = portrait.camera.frame_height() / side
        labels = _resize(labels, side)
        light = smooth(beauty, features[..., -7:], labels, pixel) * exposure(person)
        return Traced(light, np.clip(beauty[..., 3:4], 0.0, 1.0), labels, mask)

    def colored(self, traced: Traced, sitting: Sitting) -> np.ndarray:
        """The picture [size, size, 3] in the colors of one of its sittings, uint8."""
        side = self.size * OVERSAMPLING
        back = backdrop(side, sitting)
        picture = traced.light * tint(traced.labels, sitting) + back * (1.0 - traced.opacity)
        picture = picture.reshape(self.size, OVERSAMPLING, self.size, OVERSAMPLING, 3)
        return develop(picture.mean((1, 3)))

    def _trace(
        self, scene, camera: Camera, side: int, samples: int, seed: int, integrator: dict
    ) -> np.ndarray:
        mi = self.mitsuba
        sensor = mi.load_dict(
            {
                "type": "perspective",
                "fov": camera.fov,
                "to_world": mi.ScalarTransform4f().look_at(
                    origin=camera.origin.tolist(), target=camera.target.tolist(), up=[0, 0, 1]
                ),
                "film": {
                    "type": "hdrfilm", "width": side, "height": side, "pixel_format": "rgba",
                    "rfilter": {"type": "box"},
                },
                "sampler": {"type": "multijitter", "sample_count": samples},
            }
        )  # fmt: skip
        image = mi.render(scene, sensor=sensor, integrator=mi.load_dict(integrator), seed=seed)
        return np.array(image)

    def _labels(self, scene, portrait: Portrait) -> np.ndarray:
        """Class of the surface that each of the finer grid of rays meets."""
        side = self.size * MASK_RAYS
        image = self._trace(
            scene, portrait.camera, side, 1, 0,
            {"type": "aov", "aovs": "s:shape_index,p:prim_index"},
        )  # fmt: skip
        shape, triangle = np.rint(image[..., -2]).astype(int), np.rint(image[..., -1]).astype(int)
        labels = np.zeros((side, side), np.uint8)
        by_name = {part.name: part.labels for part in portrait.parts}
        for number, mesh in enumerate(scene.shapes(), start=1):
            classes = by_name.get(mesh.id())
            if classes is not None:
                hit = shape == number
                labels[hit] = classes[np.clip(triangle[hit], 0, len(classes) - 1)]
        return labels

    def _scene(self, portrait: Portrait, sitting: Sitting):
        mi = self.mitsuba
        scene: dict = {"type": "scene"} | self._lights(portrait, sitting)
        for part in [*portrait.parts, *_placeholders(portrait)]:
            scene[part.name] = self._mesh(part)
        return mi.load_dict(scene)

    def _mesh(self, part: Part):
        mi = self.mitsuba
        material = {
            "type": "twosided",
            "surface": {
                "type": "principled",
                "base_color": {"type": "mesh_attribute", "name": "vertex_color"},
                **MATERIALS[part.material],
            },
        }
        properties = mi.Properties()
        properties["mesh_bsdf"] = mi.load_dict(material)
        vertices, faces = part.mesh.vertices, part.mesh.faces
        mesh = mi.Mesh(
            part.name, len(vertices), len(faces), has_vertex_normals=True, props=properties
        )
        mesh.add_attribute("vertex_color", 3, part.color.astype(np.float32).ravel())
        parameters = mi.traverse(mesh)
        parameters["vertex_positions"] = vertices.astype(np.float32).ravel()
        parameters["vertex_normals"] = part.normals.astype(np.float32).ravel()
        parameters["faces"] = faces.astype(np.uint32).ravel()
        parameters.update()
        mesh.set_id(part.name)
        return mesh

    def _lights(self, portrait: Portrait, sitting: Sitting) -> dict:
        """A large key light, a fill from all sides, and a light from behind."""
        warm = sitting.light_warmth
        key_color = np.array([1.0 + 0.10 * warm, 1.0, 1.0 - 0.14 * warm])
        fill = np.full(3, 0.58 - 0.32 * sitting.contrast)
        key = 3.6 + 3.4 * sitting.contrast
        size = 1.6 * sitting.light_size
        eyes = portrait.eyes
        angle = 1.15 * sitting.light_side
        # Behind the camera: a panel before it would hide the face from the feature rays.
        place = eyes + KEY_DISTANCE * np.array(
            [np.sin(angle), -np.cos(angle), 0.9 * sitting.light_height]
        )
        behind = eyes + [-0.9 * np.sign(angle), 0.9, 0.7]
        return {
            "fill": {"type": "constant", "radiance": {"type": "rgb", "value": fill.tolist()}},
            "key": self._panel(place, eyes, size, key_color * key / size**2),
            "rim": self._panel(behind, eyes, 0.3, np.full(3, 6.0 * sitting.contrast + 1.0)),
        }

    def _panel(self, place: np.ndarray, eyes: np.ndarray, size: float, radiance: np.ndarray):
        look = self.mitsuba.ScalarTransform4f().look_at(
            origin=place.tolist(), target=eyes.tolist(), up=[0, 0, 1]
        )
        return {
            "type": "rectangle",
            "to_world": look.scale(size),
            "emitter": {"type": "area", "radiance": {"type": "rgb", "value": radiance.tolist()}},
        }


def _placeholders(portrait: Portrait) -> list[Part]:
    """One invisible triangle of each absent material.

    With the llvm variant Mitsuba compiles (for seconds) anew for each new set of materials.
    """
    used = {part.material for part in portrait.parts}
    behind = portrait.camera.origin + 3.0 * (portrait.camera.origin - portrait.camera.target)
    mesh = Mesh(behind + 1e-4 * np.eye(3), np.array([[0, 1, 2]]))
    return [
        Part(f"no_{name}", mesh, mesh.normals, np.zeros((3, 3)), name, np.zeros(1, int))
        for name in MATERIALS
        if name not in used
    ]


def _majority(votes: np.ndarray) -> np.ndarray:
    """The most frequent class of votes [h, w, k]; the smaller number wins a tie."""
    counts = np.stack([(votes == number).sum(-1) for number in range(len(CLASS))], axis=-1)
    return counts.argmax(-1).astype(np.uint8)


def _resize(labels: np.ndarray, side: int) -> np.ndarray:
    """The nearest of classes [n, n] at [side, side] places."""
    index = ((np.arange(side) + 0.5) * len(labels) / side).astype(int)
    return labels[np.ix_(index, index)]
