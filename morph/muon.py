"""Muon for matrices, AdamW for the rest (Jordan et al. 2024)."""

import torch
from torch import Tensor


class Muon(torch.optim.AdamW):
    """AdamW whose groups with weight decay take Muon's steps in matrices."""

    def __init__(self, params, lr: float = 1e-3, momentum: float = 0.95, **options):
        super().__init__(params, lr=lr, **options)
        self.momentum = momentum

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        held = []
        for group in self.param_groups:
            if not group["weight_decay"]:
                continue
            for p in group["params"]:
                if p.grad is None or p.ndim != 2:
                    continue
                state = self.state[p]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(p)
                state["momentum"].lerp_(p.grad, 1 - self.momentum)
                update = _orthogonal(p.grad.lerp(state["momentum"], self.momentum))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update, alpha=-group["lr"] * 0.2 * max(p.shape) ** 0.5)
                held.append((p, p.grad))
                p.grad = None
        super().step()
        for p, grad in held:
            p.grad = grad
        return loss


def _orthogonal(x: Tensor) -> Tensor:
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x
