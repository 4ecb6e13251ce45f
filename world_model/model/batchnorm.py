"""BatchNorm with the statistics of all processes' samples, on CPUs too, for which PyTorch's own has no kernel."""

import torch
from torch import Tensor, nn

from jepa_mpc.distributed import everyones, num_ranks


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm over all dimensions of (N, C, ...) but the second, with the statistics of all ranks' samples.

    PyTorch's SyncBatchNorm does the same on GPUs only.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        pass

    def forward(self, input: Tensor) -> Tensor:
        if num_ranks() == 1 or not self.training:
            return super().forward(input)
        normalised, mean, var = _SharedBatchNorm.apply(input, self.weight, self.bias, self.eps)
        self._follow(mean, var, num_ranks() * input.numel() // input.shape[1])
        return normalised

    def _follow(self, mean: Tensor, var: Tensor, count: int) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(var * count / (count - 1), momentum)


class _SharedBatchNorm(torch.autograd.Function):
    """PyTorch's own kernels for one process, with means over the ranks put in place of theirs."""

    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        local = torch.stack(torch.batch_norm_update_stats(x.float(), None, None, 0.0))
        means, variances = everyones(local).unbind(1)
        mean = means.mean(0)
        var = (variances + (means - mean).square()).mean(0)
        normalised, _, _ = torch.native_batch_norm(x, weight, bias, mean, var, False, 0.0, eps)
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt())
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var)
        return normalised, mean, var

    @staticmethod
    def backward(ctx, grad, *_):
        x, weight, mean, rstd = ctx.saved_tensors
        args = (grad, x, weight, None, None, mean, rstd, True, ctx.eps, [True, True, True])
        grad_x, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(*args)
        # It has taken off the mean of the gradient, and of its product with the normalised x, over this rank alone.
        count = x.numel() // x.shape[1]
        local = torch.stack([grad_bias, grad_weight]) / count
        excess, excess_product = local - everyones(local).mean(0)
        slope = weight * rstd * rstd * excess_product
        offset = weight * rstd * excess - slope * mean
        # The normalisation's kernel is by far the fastest way to x · slope + offset by channel.
        zeros, ones = torch.zeros_like(mean), torch.ones_like(mean)
        grad_x += torch.native_batch_norm(x, slope, offset, zeros, ones, False, 0.0, 0.0)[0]
        return grad_x, grad_weight, grad_bias, None
