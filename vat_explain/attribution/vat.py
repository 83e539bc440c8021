"""VAT behind captum's interface: scores from the same pass as the prediction."""

from __future__ import annotations

from os import PathLike
from typing import Any

import torch
from captum.attr import LayerAttribution
from captum.log import log_usage
from torch import Tensor, nn

from vat_explain.attribution.base import TextAttribution
from vat_explain.attribution.inputs import TextBatch, evaluation_mode, read_batch
from vat_explain.errors import InputError, InputTypeError
from vat_explain.explainer import VATExplainer


class VATAttribution(TextAttribution):
    """Token importance that a trained compressor reads off one forward pass.

    With ``target=None`` it gives class-free shares, which sum to 1 over the tokens of a row and rank them by what they
    do for the likeliest class: words against it get shares near 0. With a class it gives signed parts of that class's
    probability, which with the compressor's reference add up to it.

    Reconstructed after Zhou, Wu, Chen, Huang and He, "Attending via both Fine-tuning and Compressing" (Findings of
    ACL 2021).

    Parameters
    ----------
    model : VATExplainer, or str or PathLike
        An explainer, or the folder of a bundle.
    max_tokens : int
        Most tokens, padding counted, in one forward pass.

    Raises
    ------
    BundleError
        If the folder holds no bundle that can be read.
    InputTypeError
        If the model is neither.

    Examples
    --------
    >>> attribution = VATAttribution("bundle")  # doctest: +SKIP
    >>> scores = attribution.attribute(input_ids, additional_forward_args=attention_mask)  # doctest: +SKIP
    """

    name = "VAT"
    targeted = False

    def __init__(self, model: VATExplainer | str | PathLike[str], **keywords: Any) -> None:
        if not isinstance(model, VATExplainer | str | PathLike):
            raise InputTypeError(
                f"VATAttribution takes an explainer or the folder of a bundle, got {type(model).__name__}; fit one to "
                "the model first: vat_explain.fit(model, train, tokenizer=...)"
            )
        explainer = model if isinstance(model, VATExplainer) else VATExplainer.from_pretrained(model)
        super().__init__(explainer.model.learner, **keywords)
        self.model = explainer.model

    def _score(self, batch: TextBatch, limit: int) -> Tensor:
        with evaluation_mode(self.model.compressor):
            output = self.model(batch.inputs, *batch.arguments, batch.scorable)
        if batch.targets is None:
            importance: Tensor = output.importance
            return importance
        targets = batch.targets[:, None, None].expand(-1, batch.tokens, 1)
        parts: Tensor = output.class_importance.gather(2, targets).squeeze(2)
        return parts


class LayerVATAttribution(LayerAttribution):
    """The scores of `VATAttribution` laid over the output of a layer, evenly over the width of each token.

    Parameters
    ----------
    model : VATExplainer, or str or PathLike
        An explainer, or the folder of a bundle.
    layer : Module
        A layer of the learner that puts out one vector for each token; the attribute may be assigned anew.
    """

    def __init__(self, model: VATExplainer | str | PathLike[str], layer: nn.Module) -> None:
        self._attribution = VATAttribution(model)
        super().__init__(self._attribution.forward_func, layer)

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether scores are effects of the tokens as they are, not slopes or weights."""
        return self._attribution.multiplies_by_inputs

    @classmethod
    def get_name(cls) -> str:
        """Return the name of the method."""
        return "Layer VAT"

    @log_usage()
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor],
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        internal_batch_size: int | None = None,
        show_progress: bool = False,
    ) -> Tensor | tuple[Tensor]:
        """Score the output of the layer.

        Parameters and errors are those of `VATAttribution`: ``target=None`` gives class-free shares, a
        class explains its probability.

        Returns
        -------
        Tensor, or tuple of one Tensor if `inputs` is one; shape [batch, tokens, width of the layer]
            Sums over the width to the scores of the tokens.

        Raises
        ------
        InputError
            Also if the layer does not put out one vector for each token.
        """
        scores = self._attribution.attribute(
            inputs,
            target,
            additional_forward_args,
            internal_batch_size=internal_batch_size,
            show_progress=show_progress,
        )
        tokens = scores[0] if isinstance(scores, tuple) else scores
        tokens = tokens.sum(-1) if tokens.ndim == 3 else tokens
        width = self._width(inputs[0] if isinstance(inputs, tuple) else inputs, additional_forward_args)
        laid = (tokens / width).unsqueeze(-1).expand(-1, -1, width).contiguous()
        return (laid,) if isinstance(inputs, tuple) else laid

    def attribute_future(self) -> None:
        """Raise NotImplementedError: scores are not computed asynchronously."""
        raise NotImplementedError(f"{self.get_name()} computes no futures; call attribute")

    def _width(self, inputs: Tensor, additional_forward_args: Any) -> int:
        """Run the first row and see what the layer puts out."""
        classifier = self._attribution.classifier
        first = read_batch(classifier, inputs, None, additional_forward_args).rows(0, 1)
        seen: list[object] = []
        handle = self.layer.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
        try:
            with evaluation_mode(classifier), torch.no_grad():
                classifier(first.inputs, *first.arguments)
        finally:
            handle.remove()
        output = seen[0] if seen else None
        output = output[0] if isinstance(output, tuple) else output
        if not isinstance(output, Tensor) or output.ndim != 3 or output.shape[1] != first.tokens:
            given = f"shape {list(output.shape)}" if isinstance(output, Tensor) else "no tensor for these inputs"
            raise InputError(
                f"layer {type(self.layer).__name__} puts out {given}; choose one of the learner that puts out "
                "[batch, tokens, width]"
            )
        return output.shape[2]
