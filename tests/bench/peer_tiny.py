"""Python PyTorch peer of `tiny_imagenet_experiments`: the same nets, transform and optimizer, stock tools only.

    python tests/bench/peer_tiny.py --data_dir DIR --model residual --width 0.25 --epochs 10 --seed 0

DIR has TinyImageNet's layout (wnids.txt, train/<wnid>/images, val/images + val_annotations.txt). Prints one line an
epoch and a last line of JSON: accuracies as fractions, seconds of each epoch.
"""

import argparse
import json
import pathlib
import random
import statistics
import sys
import time

import numpy
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.transforms import v2

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "python"))
import tiny_models  # noqa: E402

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def index_split(root, split):
    """(path, class) of each image; the class is the line number of its wnid in wnids.txt."""
    classes = {wnid: i for i, wnid in enumerate((root / "wnids.txt").read_text().split())}
    if split == "train":
        return [(p, c) for wnid, c in classes.items() for p in sorted((root / "train" / wnid / "images").glob("*.JPEG"))]
    rows = [line.split("\t") for line in (root / "val" / "val_annotations.txt").read_text().splitlines()]
    return [(root / "val" / "images" / row[0], classes[row[1]]) for row in rows if row[1] in classes]


class Images(torch.utils.data.Dataset):
    def __init__(self, items, transform):
        self.items, self.transform = items, transform

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        path, label = self.items[i]
        with Image.open(path) as image:
            return self.transform(image.convert("RGB")), label


def loaders(args):
    to_float = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    augment = [v2.RandomResizedCrop(64, scale=(0.08, 1.0)), v2.RandomHorizontalFlip(), v2.ColorJitter(0.2, 0.2, 0.2, 0.1)]
    kwargs = dict(batch_size=args.batch_size, num_workers=args.num_workers, persistent_workers=args.num_workers > 0)
    train = Images(index_split(args.data_dir, "train"), v2.Compose(augment + to_float))
    val = Images(index_split(args.data_dir, "val"), v2.Compose(to_float))
    return (
        torch.utils.data.DataLoader(train, shuffle=True, **kwargs),
        torch.utils.data.DataLoader(val, **kwargs),
    )


def train_epoch(model, loader, optimizer):
    model.train()
    loss_sum = correct = seen = 0.0
    for images, labels in loader:
        logits = model(images)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss_sum += loss.item() * len(labels)
        correct += (logits.argmax(1) == labels).sum().item()
        seen += len(labels)
    return loss_sum / seen, correct / seen


@torch.no_grad()
def evaluate(model, loader):
    model.eval()
    loss_sum = correct = seen = 0.0
    for images, labels in loader:
        logits = model(images)
        loss_sum += F.cross_entropy(logits, labels, reduction="sum").item()
        correct += (logits.argmax(1) == labels).sum().item()
        seen += len(labels)
    return loss_sum / seen, correct / seen


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=pathlib.Path, required=True)
    parser.add_argument("--model", choices=tiny_models.MODELS, default="residual")
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--weight_decay", type=float, default=1e-6)
    parser.add_argument("--num_workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    random.seed(args.seed)
    numpy.random.seed(args.seed)
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    train, val = loaders(args)
    num_classes = len((args.data_dir / "wnids.txt").read_text().split())
    model = tiny_models.make(args.model, num_classes, args.width)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr, weight_decay=args.weight_decay)

    seconds, accuracies = [], []
    for epoch in range(1, args.epochs + 1):
        start = time.perf_counter()
        train_loss, train_acc = train_epoch(model, train, optimizer)
        val_loss, val_acc = evaluate(model, val)
        seconds.append(time.perf_counter() - start)
        accuracies.append(val_acc)
        print(
            f"Epoch {epoch:3d}/{args.epochs}: Train Loss: {train_loss:.4f}, Train Acc: {100 * train_acc:.2f}%, "
            f"Test Loss: {val_loss:.4f}, Test Acc: {100 * val_acc:.2f}%, LR: {args.lr:.6f}, Time: {seconds[-1]:.2f}s",
            flush=True,
        )
    summary = dict(
        model=args.model, width=args.width, seed=args.seed, epochs=args.epochs, batch_size=args.batch_size,
        num_classes=num_classes, train_images=len(train.dataset), val_images=len(val.dataset), torch=torch.__version__,
        best_val_acc=max(accuracies), last_val_acc=accuracies[-1], val_acc=accuracies,
        epoch_seconds=[round(s, 3) for s in seconds], median_epoch_seconds=round(statistics.median(seconds), 3),
    )  # fmt: skip
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
