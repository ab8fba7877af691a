"""The five TinyImageNet nets in Python PyTorch, written from their description alone: the oracle of the C++ nets.

`width` scales channels and hidden features: nearest multiple of 16 (halves up), at least 16. State-dict names are those
of the C++ nets, so weights pass both ways.
"""

import math

import torch
from torch import nn


def scaled(channels, width):
    return max(16, 16 * math.floor(channels * width / 16 + 0.5))


def set_dropout(model, p):
    """Sets the probability of all dropout in `model`; 0 turns dropout off and keeps the training mode."""
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = p
        elif isinstance(module, (nn.MultiheadAttention, nn.GRU)):
            module.dropout = p


class ResidualBlock(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        out = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class SqueezeExcite(nn.Module):
    def __init__(self, channels, reduction=16):
        super().__init__()
        hidden = max(1, channels // reduction)
        self.fc = nn.Sequential(
            nn.Linear(channels, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, channels, bias=False), nn.Sigmoid()
        )

    def forward(self, x):
        return x * self.fc(x.mean((2, 3)))[:, :, None, None]


def mlp(inputs, width, num_classes):
    a, b = scaled(512, width), scaled(256, width)
    return nn.Sequential(
        nn.Linear(inputs, a), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(a, b), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(b, num_classes),
    )  # fmt: skip


class Baseline(nn.Module):
    def __init__(self, num_classes=200, width=1.0, image_size=64):
        super().__init__()
        self.features = self.make_features([scaled(c, width) for c in (128, 256, 512, 512, 256)])
        self.classifier = mlp(scaled(256, width) * (image_size // 8) ** 2, width, num_classes)

    @staticmethod
    def unit(inputs, outputs):
        return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]

    def make_features(self, c):
        layers = []
        for inputs, outputs, pool in zip([3] + c, c, (True, True, False, False, True)):
            layers += self.unit(inputs, outputs)
            if pool:
                layers += [nn.MaxPool2d(2), nn.Dropout(0.3)]
        return nn.Sequential(*layers)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


class SeAttention(Baseline):
    @staticmethod
    def unit(inputs, outputs):
        return [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(), SqueezeExcite(outputs)]


class Residual(nn.Module):
    def __init__(self, num_classes=200, width=1.0, image_size=64):
        super().__init__()
        c = [scaled(n, width) for n in (64, 128, 256, 512, 512)]
        self.conv1 = nn.Conv2d(3, c[0], 3, padding=1)
        self.bn1 = nn.BatchNorm2d(c[0])
        self.layer1 = ResidualBlock(c[0], c[1], 2)
        self.layer2 = ResidualBlock(c[1], c[2], 2)
        self.layer3 = ResidualBlock(c[2], c[3], 2)
        self.layer4 = ResidualBlock(c[3], c[4], 2)
        self.fc = nn.Linear(c[4], num_classes)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class DeeperWider(nn.Module):
    def __init__(self, num_classes=200, width=1.0, image_size=64):
        super().__init__()
        layers, inputs = [], 3
        for channels, pool in ((128, True), (256, True), (512, True), (1024, False)):
            outputs = scaled(channels, width)
            for a, b in ((inputs, outputs), (outputs, outputs)):
                layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU()]
            if pool:
                layers += [nn.MaxPool2d(2), nn.Dropout(0.2)]
            inputs = outputs
        self.features = nn.Sequential(*layers)
        self.classifier = mlp(inputs, width, num_classes)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


class Best(nn.Module):
    def __init__(self, num_classes=200, width=1.0, image_size=64):
        super().__init__()
        c = [scaled(n, width) for n in (128, 256, 512, 1024)]
        self.layer1 = ResidualBlock(3, c[0], 1)
        self.layer2 = ResidualBlock(c[0], c[1], 2)
        self.layer3 = ResidualBlock(c[1], c[2], 2)
        self.layer4 = ResidualBlock(c[2], c[3], 2)
        self.dropout = nn.Dropout(0.2)
        self.classifier = mlp(c[3], width, num_classes)

    def forward(self, x):
        x = self.dropout(self.layer1(x))
        x = self.dropout(self.layer2(x))
        x = self.dropout(self.layer3(x))
        return self.classifier(self.layer4(x).mean((2, 3)))


MODELS = {
    "baseline": Baseline,
    "residual": Residual,
    "deeper_wider": DeeperWider,
    "se_attention": SeAttention,
    "best": Best,
}


def make(name, num_classes=200, width=1.0, image_size=64):
    return MODELS[name](num_classes=num_classes, width=width, image_size=image_size)
