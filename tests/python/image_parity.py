"""Image decoding and transforms in C++ against torchvision: pixels of the deterministic operations one by one, and the
distributions of the random choices.

Pixels are those of torchvision.io and torchvision.transforms.v2.functional on uint8 tensors. The random choices are
compared as two samples of the same size: Kolmogorov-Smirnov for quantities on a scale, chi-square for orders and
counts. Seeds are fixed, so the test gives the same verdict each time.
"""

import io
import itertools
import sys
import tempfile

import parity
import numpy as np
import torch

try:
    import PIL.Image
    import scipy.stats
    from torchvision.io import ImageReadMode, decode_image, decode_jpeg
    from torchvision.transforms import v2
    from torchvision.transforms.v2 import functional as F
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(parity.SKIPPED)

RGB = ImageReadMode.RGB
DRAWS = 8000
# Every comparison has this chance to fail for equal distributions; about 40 are made.
SIGNIFICANCE = 1e-5


class Driver(parity.LineDriver):
    def image(self, tensor):
        """A CHW tensor as an input file."""
        return self.file(np.int32(tensor.shape[1:]).tobytes() + tensor.permute(1, 2, 0).contiguous().numpy().tobytes())


def read_image(path):
    content = path.read_bytes()
    height, width = np.frombuffer(content[:8], np.int32)
    pixels = np.frombuffer(content[8:], np.uint8).reshape(height, width, 3)
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def picture(height, width, kind):
    """A test image CHW: smooth, noisy, or with the extreme and grey values where rounding goes wrong first."""
    generator = torch.Generator().manual_seed(height * 1000 + width)
    noise = torch.randint(256, (3, height, width), generator=generator, dtype=torch.uint8)
    if kind == "noise":
        return noise
    if kind == "smooth":
        coarse = torch.rand(1, 3, 5, 5, generator=generator) * 255
        return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")[0].clamp(0, 255).byte()
    grey = noise[:1].expand(3, -1, -1)
    extreme = (noise > 127).byte() * 255
    return torch.where(noise[:1] % 3 == 0, grey, extreme)


class Report:
    def __init__(self):
        self.failures, self.worst = [], {}

    def pixels(self, name, expected, actual, tolerance, details=""):
        """Largest difference in grey levels (or units of a float image) of one comparison."""
        if expected.shape != actual.shape:
            self.failures.append(f"{name} {details}: shape {tuple(actual.shape)}, wanted {tuple(expected.shape)}")
            return
        difference = (expected.double() - actual.double()).abs()
        worst, share = difference.max().item(), (difference > tolerance / 1000).double().mean().item()
        seen = self.worst.get(name, (0.0, 0.0, 0))
        self.worst[name] = (max(seen[0], worst), max(seen[1], share), seen[2] + 1)
        if not worst <= tolerance:
            self.failures.append(f"{name} {details}: differs by {worst}, allowed {tolerance}")

    def check(self, name, holds, details):
        self.worst.setdefault(name, details)
        if not holds:
            self.failures.append(f"{name}: {details}")

    def finish(self):
        for name, seen in self.worst.items():
            if isinstance(seen, tuple):
                print(f"{name:32} worst {seen[0]:.7f}, differing {100 * seen[1]:.4f} % in the worst of {seen[2]} cases")
            else:
                print(f"{name:32} {seen}")
        for failure in self.failures:
            print("FAILED", failure)
        return 1 if self.failures else 0


def encoded(mode, size, image_format, **options):
    """An image file of PIL; `size` is (width, height)."""
    array = picture(size[1], size[0], "smooth").permute(1, 2, 0).numpy()
    image = PIL.Image.fromarray(np.ascontiguousarray(array)).convert(mode)
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def check_decoding(driver, report):
    sizes = [(64, 64), (1, 1), (7, 3), (33, 17), (250, 131)]
    jpegs = {}
    for size, quality, subsampling, progressive in itertools.product(sizes, (30, 95), (0, 1, 2), (False, True)):
        options = dict(quality=quality, subsampling=subsampling, progressive=progressive)
        jpegs[f"jpeg RGB {size} {options}"] = encoded("RGB", size, "JPEG", **options)
    for size in sizes:
        jpegs[f"jpeg grey {size}"] = encoded("L", size, "JPEG")
        jpegs[f"jpeg CMYK {size}"] = encoded("CMYK", size, "JPEG")
        jpegs[f"jpeg restart {size}"] = encoded("RGB", size, "JPEG", restart_marker_blocks=2)
    others = {f"{mode} {size}": encoded(mode, size, "PNG") for mode in ("RGB", "L", "P", "1") for size in sizes}
    other_files = {name: driver.add(driver.file(data), "decode") for name, data in others.items()}
    transparent = {f"{mode} {size}": encoded(mode, size, "PNG") for mode in ("RGBA", "LA") for size in sizes}
    transparent_files = {name: driver.add(driver.file(data), "decode") for name, data in transparent.items()}
    bitmaps = {f"{kind} {size}": encoded("RGB", size, kind) for kind in ("BMP", "TIFF", "PPM") for size in sizes}
    bitmap_files = {name: driver.add(driver.file(data), "decode") for name, data in bitmaps.items()}
    jpeg_files = {name: driver.add(driver.file(data), "decode") for name, data in jpegs.items()}
    driver.run()
    as_tensor = lambda data: torch.frombuffer(bytearray(data), dtype=torch.uint8)
    for name, data in jpegs.items():
        report.pixels("decode JPEG", decode_jpeg(as_tensor(data), mode=RGB), read_image(jpeg_files[name]), 0, name)
    for name, data in others.items():
        report.pixels("decode PNG", decode_image(as_tensor(data), mode=RGB), read_image(other_files[name]), 0, name)
    for name, data in transparent.items():
        # Alpha is dropped, as PIL's convert does (torchvision does the same).
        image = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"))
        expected = torch.from_numpy(image.copy()).permute(2, 0, 1)
        report.pixels("decode PNG with alpha", expected, read_image(transparent_files[name]), 0, name)
    for name, data in bitmaps.items():
        image = np.asarray(PIL.Image.open(io.BytesIO(data)).convert("RGB"))
        expected = torch.from_numpy(image.copy()).permute(2, 0, 1)
        report.pixels("decode BMP, TIFF, PPM", expected, read_image(bitmap_files[name]), 0, name)


def check_encoding(driver, report):
    image = picture(45, 70, "smooth")
    source = driver.image(image)
    jpegs = {(quality, grey): driver.add(source, "encode_jpeg", quality, grey) for quality in (50, 90) for grey in (0, 1)}
    png = driver.add(source, "encode_png")
    driver.run()
    for (quality, grey), path in jpegs.items():
        decoded = PIL.Image.open(path)
        kind = (decoded.mode, decoded.size)
        report.check(f"encode JPEG {quality} {grey} kind", kind == ("L" if grey else "RGB", (70, 45)), str(kind))
        original = PIL.Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy())).convert(decoded.mode)
        error = np.abs(np.float64(decoded) - np.float64(original)).mean()
        limit = 2 if quality == 90 else 4
        report.check(f"encode JPEG {quality} {grey}", error < limit, f"mean error {error:.3f} grey levels")
    report.pixels("encode PNG", image, F.pil_to_tensor(PIL.Image.open(png)), 0)


def check_geometry(driver, report):
    checks = []
    sizes = [(64, 64), (37, 53), (1, 1), (2, 300), (224, 97), (500, 375), (5, 3)]
    # torch 2.11 itself fails an assertion on targets of 1x1.
    targets = [(64, 64), (32, 32), (1, 2), (3, 1), (17, 90), (128, 37), (224, 224)]
    for (height, width), kind in itertools.product(sizes, ("smooth", "noise", "extreme")):
        image = picture(height, width, kind)
        source = driver.image(image)
        for target, antialias in itertools.product(targets, (True, False)):
            expected = F.resize(image, list(target), antialias=antialias)
            output = driver.add(source, "resize", *target, int(antialias))
            # Two axes are two roundings, but of the same integers as torch's: no difference at all is expected.
            checks.append((f"resize antialias={antialias}", expected, output, f"{(height, width)} -> {target} {kind}"))
        if min(height, width) > 1:
            expected = F.resize(image, [40])
            checks.append(("resize shorter side", expected, driver.add(source, "resize_shorter", 40), (height, width)))
        box = (-3, 2, max(height - 1, 1), width + 4)
        checks.append(("crop", F.crop(image, *box), driver.add(source, "crop", *box), box))
        checks.append(("flip", F.horizontal_flip(image), driver.add(source, "flip"), (height, width)))
        expected = F.pad(image, [1, 2, 3, 4], fill=77)
        checks.append(("pad", expected, driver.add(source, "pad", 1, 2, 3, 4, 77), (height, width)))
        for size in ((32, 32), (65, 40), (600, 33), (601, 602)):
            expected = F.center_crop(image, list(size))
            checks.append(("center_crop", expected, driver.add(source, "center_crop", *size), (height, width, size)))
    image = picture(64, 64, "smooth")
    source = driver.image(image)
    generator = np.random.default_rng(5)
    for _ in range(200):
        height, width = generator.integers(1, 65, 2)
        top, left = generator.integers(0, 65 - height), generator.integers(0, 65 - width)
        box = [int(v) for v in (top, left, height, width)]
        checks.append(
            ("resized_crop", F.resized_crop(image, *box, [64, 64]), driver.add(source, "resized_crop", *box, 64, 64), box)
        )
    driver.run()
    for name, expected, output, details in checks:
        report.pixels(name, expected, read_image(output), 0, details)


# Floats throughout: with a whole number torchvision's brightness overflows in uint8.
FACTORS = (0.0, 0.2, 0.8, 0.9137, 1.0, 1.2, 1.7731, 4.0)


def check_colors(driver, report):
    cases = {
        "brightness": (F.adjust_brightness, FACTORS),
        "contrast": (F.adjust_contrast, FACTORS),
        "saturation": (F.adjust_saturation, FACTORS),
        "hue": (F.adjust_hue, (-0.5, -0.3001, -0.1, -0.01, 0, 0.0777, 1 / 6, 0.25, 0.5)),
    }
    checks = []
    for size, kind in itertools.product(((64, 64), (1, 1), (3, 5), (61, 47), (300, 200)), ("smooth", "noise", "extreme")):
        image = picture(*size, kind)
        source = driver.image(image)
        for name, (function, amounts) in cases.items():
            for amount in amounts:
                checks.append((name, function(image, amount), driver.add(source, name, amount), f"{amount} {size} {kind}"))
    # All colors that hue can meet, in a coarse grid.
    levels = torch.arange(0, 256, 5, dtype=torch.uint8)
    grid = torch.stack(torch.meshgrid(levels, levels, levels, indexing="ij")).reshape(3, len(levels), -1).contiguous()
    source = driver.image(grid)
    for amount in (-0.37, -0.1, 0.05, 0.1, 0.43):
        checks.append(("hue", F.adjust_hue(grid, amount), driver.add(source, "hue", amount), f"{amount} all colors"))
    driver.run()
    for name, expected, output, details in checks:
        report.pixels(f"adjust_{name}", expected, read_image(output), 1, details)


def check_floats(driver, report):
    mean, std = [0.4802, 0.4481, 0.3975], [0.2770, 0.2691, 0.2821]
    checks = []
    for size in ((64, 64), (1, 1), (5, 15), (17, 16), (31, 33)):
        image = picture(*size, "noise")
        source = driver.image(image)
        scaled = F.to_dtype(image, torch.float32, scale=True)
        checks.append(("normalize", F.normalize(scaled, mean, std), driver.add(source, "normalize", *mean, *std), size))
        height, width = (size[0] + 1) // 2, size[1] // 3
        box = (size[0] - height, size[1] - width, height, width)
        expected = F.erase(scaled, box[0], box[1], height, width, torch.tensor([[[0.25]]]))
        checks.append(("erase", expected, driver.add(source, "erase", *box, 0.25), size))
    driver.run()
    for name, expected, output, details in checks:
        actual = torch.from_numpy(np.fromfile(output, np.float32).reshape(tuple(expected.shape)))
        report.pixels(name, expected, actual, 2e-6, details)


def shape_quantities(boxes, height, width):
    """Area share, ratio and place (as a share of the room there is) of boxes [n, 4]."""
    top, left, h, w = boxes.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "area": h * w / (height * width),
            "ratio": w / h,
            "top": np.where(height > h, top / (height - h), 0.5),
            "left": np.where(width > w, left / (width - w), 0.5),
        }


def compare_distributions(report, name, expected, actual):
    """Two samples of one quantity: the whole distribution, and mean and spread for the report."""
    p = scipy.stats.ks_2samp(expected, actual).pvalue
    text = (
        f"p {p:.3g}; mean {np.mean(expected):.4f} {np.mean(actual):.4f}; "
        f"standard deviation {np.std(expected):.4f} {np.std(actual):.4f} (torchvision, here)"
    )
    report.check(name, p > SIGNIFICANCE, text)


def compare_counts(report, name, expected, actual):
    """How often each value occurs in two samples."""
    values = sorted(set(expected) | set(actual))
    table = [[list(sample).count(value) for value in values] for sample in (expected, actual)]
    p = scipy.stats.chi2_contingency(table).pvalue if len(values) > 1 else 1.0
    report.check(name, p > SIGNIFICANCE, f"p {p:.3g} over {len(values)} values")


def box_of(parameters):
    return [parameters[key] for key in ("top", "left", "height", "width")]


def check_distributions(driver, report):
    torch.manual_seed(99)
    resized_cases = [
        (64, 64, (0.08, 1.0), (3 / 4, 4 / 3)),
        (375, 500, (0.08, 1.0), (3 / 4, 4 / 3)),
        (30, 60, (0.55, 1.0), (3 / 4, 4 / 3)),  # most tries fail: the fallback counts
    ]
    jobs = {}
    for height, width, scale, ratio in resized_cases:
        jobs[height, width] = driver.add("-", "sample_resized_crop", height, width, *scale, *ratio, DRAWS)
    erasing = (0.5, (0.02, 0.33), (0.3, 3.3))
    erased = driver.add("-", "sample_erasing", 64, 48, erasing[0], *erasing[1], *erasing[2], DRAWS)
    cropped = driver.add("-", "sample_crop", 64, 60, 64, 4, DRAWS)
    strengths = (0.2, 1.5, 0.4, 0.1)
    jittered = driver.add("-", "sample_jitter", *strengths, DRAWS)
    driver.run()

    for height, width, scale, ratio in resized_cases:
        transform = v2.RandomResizedCrop(64, scale=scale, ratio=ratio)
        image = torch.empty(3, height, width)
        expected = np.array([box_of(transform.make_params([image])) for _ in range(DRAWS)], dtype=np.float64)
        actual = np.fromfile(jobs[height, width]).reshape(DRAWS, 4)
        wanted, drawn = shape_quantities(expected, height, width), shape_quantities(actual, height, width)
        for quantity in wanted:
            compare_distributions(report, f"resized crop {quantity} {height}", wanted[quantity], drawn[quantity])

    transform = v2.RandomErasing(p=1, scale=erasing[1], ratio=erasing[2])
    draws = [transform.make_params([torch.empty(3, 64, 48)]) for _ in range(DRAWS)]
    expected = np.array([[d["i"], d["j"], d["h"], d["w"]] for d in draws if d["v"] is not None], dtype=np.float64)
    actual = np.fromfile(erased).reshape(DRAWS, 4)
    hits = actual[actual[:, 2] >= 0]
    report.check("erasing p", abs(len(hits) / DRAWS - 0.5 * len(expected) / DRAWS) < 0.03, f"{len(hits)} of {DRAWS}")
    wanted, drawn = shape_quantities(expected, 64, 48), shape_quantities(hits, 64, 48)
    for quantity in wanted:
        compare_distributions(report, f"erasing {quantity}", wanted[quantity], drawn[quantity])

    transform = v2.RandomCrop(64, padding=4)
    draws = [transform.make_params([torch.empty(3, 64, 60)]) for _ in range(DRAWS)]
    actual = np.fromfile(cropped).reshape(DRAWS, 4)
    compare_counts(report, "crop top", [d["top"] - 4 for d in draws], actual[:, 0].tolist())
    compare_counts(report, "crop left", [d["left"] - 4 for d in draws], actual[:, 1].tolist())
    places = 10 * (actual[:, 0] + 4) + actual[:, 1] + 4
    compare_counts(report, "crop place", [10 * d["top"] + d["left"] for d in draws], places.tolist())

    transform = v2.ColorJitter(*strengths)
    draws = [transform.make_params([]) for _ in range(DRAWS)]
    actual = np.fromfile(jittered).reshape(DRAWS, 8)
    order = lambda sequence: int("".join(str(int(v)) for v in sequence))
    compare_counts(report, "jitter order", [order(d["fn_idx"]) for d in draws], [order(row) for row in actual[:, :4]])
    for column, kind in enumerate(("brightness", "contrast", "saturation", "hue"), start=4):
        expected = [d[f"{kind}_factor"] for d in draws]
        compare_distributions(report, f"jitter {kind}", expected, actual[:, column])


def main():
    program = parity.parse_driver(__doc__)
    report = Report()
    with tempfile.TemporaryDirectory(prefix="mmtrain_images_") as folder:
        driver = Driver(program, folder)
        for check in (check_decoding, check_encoding, check_geometry, check_colors, check_floats, check_distributions):
            check(driver, report)
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
