"""Metrics and the classification report equal scikit-learn's, on random cases with all the awkward corners.

The report must be the same text to the letter; figures agree to 1e-12 (both sides compute in double precision).
"""

import argparse
import json
import subprocess
import sys
import unittest

SKIPPED = 77

try:
    import numpy as np
    from sklearn import metrics as oracle
except ImportError as missing:
    print(f"skipped: {missing}")
    sys.exit(SKIPPED)

DRIVER = None
ALPHABET = list("abcdefghijklmnopqrstuvwxyzABCXYZ_- 0123456789") + list("éßñ日本語ж😀")


def drive(jobs):
    lines = "".join(json.dumps(job) + "\n" for job in jobs)
    done = subprocess.run([DRIVER], input=lines, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def random_labels(rng, classes, rows):
    """True and predicted classes: right about half the time, from two draws in which some classes may be missing."""
    shares = rng.dirichlet(np.full(classes, rng.choice([0.1, 1.0, 100.0])), size=2)
    true = rng.choice(classes, rows, p=shares[0])
    guess = rng.choice(classes, rows, p=shares[1])
    return true, np.where(rng.random(rows) < rng.random(), true, guess)


def random_names(rng, classes):
    lengths = rng.integers(1, rng.choice([8, 20, 60]), classes)
    return ["".join(rng.choice(ALPHABET, length)) for length in lengths]


class Report(unittest.TestCase):
    def check(self, cases):
        """Each case: true classes, predicted classes, names, digits."""
        jobs = [
            {
                "confusion": oracle.confusion_matrix(true, predicted, labels=range(len(names))).tolist(),
                "names": names,
                "digits": digits,
            }
            for true, predicted, names, digits in cases
        ]
        for (true, predicted, names, digits), text in zip(cases, drive(jobs), strict=True):
            expected = oracle.classification_report(
                true, predicted, labels=range(len(names)), target_names=names, digits=digits, zero_division=0
            )
            self.assertEqual(text, expected)

    def test_random_cases_of_any_size(self):
        rng = np.random.default_rng(1)
        cases = []
        for _ in range(300):
            classes = int(rng.choice([1, 2, 3, 7, 8, 9, 20]))
            true, predicted = random_labels(rng, classes, int(rng.choice([1, 2, 5, 16, 100, 5000])))
            cases.append((true, predicted, random_names(rng, classes), int(rng.integers(0, 9))))
        self.check(cases)

    def test_many_classes(self):
        rng = np.random.default_rng(2)
        cases = []
        for classes in (127, 128, 129, 200, 257, 600):
            true, predicted = random_labels(rng, classes, 3000)
            cases.append((true, predicted, random_names(rng, classes), 16))
        self.check(cases)

    def test_figures_in_the_middle_between_two_roundings(self):
        rng = np.random.default_rng(3)
        cases = []
        for _ in range(300):
            classes = int(rng.integers(2, 17))
            # Rows in powers of two make shares such as 0.125 and 0.375 common.
            true = np.repeat(np.arange(classes), 8)
            predicted = np.where(rng.random(true.size) < 0.5, true, rng.permutation(true))
            cases.append((true, predicted, random_names(rng, classes), int(rng.integers(1, 4))))
        self.check(cases)

    def test_class_that_is_never_true_or_never_predicted(self):
        names = ["never seen", "never said", "neither", "both"]
        self.check([(np.array([1, 1, 3]), np.array([0, 3, 3]), names, 2), (np.array([3]), np.array([0]), names, 2)])


class Metrics(unittest.TestCase):
    def random_job(self, rng):
        classes, rows = int(rng.choice([2, 3, 5, 6, 7, 20, 200])), int(rng.choice([1, 3, 64, 500]))
        dtype = str(rng.choice(["float32", "float64"]))
        true, _ = random_labels(rng, classes, rows)
        logits = rng.normal(size=(rows, classes)).astype(dtype)
        logits[np.arange(rows), true] += rng.choice([0, 1, 3])
        weights = rng.choice([0.0, 1.0, 0.5], rows)
        ignored = rng.random(rows) < 0.1
        weighted = rng.random() < 0.7
        counted = ~ignored & (weights != 0 if weighted else True)
        target = np.where(ignored, -100, true)
        cuts = np.sort(rng.integers(0, rows + 1, int(rng.integers(0, 4))))
        losses = rng.random(len(cuts) + 1)
        batches = [
            {
                "logits": part_logits.tolist(),
                "target": part_target.tolist(),
                "row_weights": part_weights.tolist() if weighted else None,
                "loss_sum": loss,
                "weight": float(len(part_target)),
            }
            for part_logits, part_target, part_weights, loss in zip(
                np.split(logits, cuts), np.split(target, cuts), np.split(weights, cuts), losses, strict=True
            )
        ]
        job = {"classes": classes, "dtype": dtype, "batches": batches}
        return job, logits[counted], true[counted], losses.sum() / rows

    def assert_close(self, actual, expected, what):
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12, err_msg=what)

    def test_random_batches(self):
        rng = np.random.default_rng(4)
        cases = [self.random_job(rng) for _ in range(150)]
        for (job, logits, true, loss), values in zip(cases, drive([case[0] for case in cases]), strict=True):
            labels = range(job["classes"])
            np.testing.assert_allclose(values["loss"], loss, rtol=1e-6)
            self.assertEqual(values["rows"], len(true))
            if len(true) == 0:
                self.assertEqual([values[k] for k in ("accuracy", "top5", "f1_macro", "f1_weighted")], [0, 0, 0, 0])
                continue
            predicted = logits.argmax(1)
            self.assertEqual(values["confusion"], oracle.confusion_matrix(true, predicted, labels=labels).tolist())
            self.assert_close(values["accuracy"], oracle.accuracy_score(true, predicted), "accuracy")
            for average in ("macro", "weighted"):
                expected = oracle.f1_score(true, predicted, average=average, zero_division=0)
                self.assert_close(values[f"f1_{average}"], expected, f"f1 {average}")
            expected = oracle.precision_recall_fscore_support(true, predicted, labels=labels, zero_division=0)
            for name, column in zip(("precision", "recall", "f1", "support"), expected, strict=True):
                self.assert_close(values[name], column, name)
            # scikit-learn wants one column for two classes, and warns where all classes are among the best.
            top5 = 1.0 if job["classes"] <= 5 else oracle.top_k_accuracy_score(true, logits, k=5, labels=labels)
            self.assert_close(values["top5"], top5, "top5")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--driver", required=True)
    arguments, rest = parser.parse_known_args()
    DRIVER = arguments.driver
    unittest.main(argv=[sys.argv[0], *rest], warnings="ignore")
