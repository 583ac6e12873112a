"""Steps of torch.optim in float64, for tests/optim.rs: writes tests/golden/optim/<case>.safetensors.

    python tests/golden/optim.py          # needs torch and safetensors

Each file holds `w` [8, 3] (start), `g` [60, 8, 3] (the gradient of each step; some 0, some 1e-20) and `want` [60, 8, 3]
(the weights after each step); its metadata hold the optimizer's name and attributes as ringtape takes them.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

CASES = {
    "sgd": ("sgd", {}, lambda p, lr: torch.optim.SGD(p, lr)),
    "sgd_momentum": (
        "sgd", {"momentum": "0.9", "dampening": "0.1", "weight_decay": "0.2"},
        lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, dampening=0.1, weight_decay=0.2)),
    "sgd_nesterov": (
        "sgd", {"momentum": "0.7", "nesterov": "true"},
        lambda p, lr: torch.optim.SGD(p, lr, momentum=0.7, nesterov=True)),
    "adamw": ("adamw", {}, lambda p, lr: torch.optim.AdamW(p, lr)),
    "adamw_other": (
        "adamw", {"beta1": "0.8", "beta2": "0.95", "eps": "1e-6", "weight_decay": "0.3"},
        lambda p, lr: torch.optim.AdamW(p, lr, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.3)),
}
LR, STEPS, SHAPE = 0.01, 60, (8, 3)


def main():
    folder = Path(__file__).parent / "optim"
    folder.mkdir(exist_ok=True)
    for name, (optimizer, attrs, build) in CASES.items():
        torch.manual_seed(len(name))
        w = torch.randn(SHAPE, dtype=torch.float64)
        g = torch.randn((STEPS, *SHAPE), dtype=torch.float64)
        g[:, 0] = 0.0
        g[:, 1] = 1e-20
        g[::3, 2] = 0.0
        p = torch.nn.Parameter(w.clone())
        steps, o = [], build([p], LR)
        for gradient in g:
            p.grad = gradient.clone()
            o.step()
            steps.append(p.detach().clone())
        about = {"optimizer": optimizer, "attrs": json.dumps(attrs), "lr": str(LR), "torch": torch.__version__}
        save_file({"w": w, "g": g, "want": torch.stack(steps)}, folder / f"{name}.safetensors", about)


if __name__ == "__main__":
    main()
