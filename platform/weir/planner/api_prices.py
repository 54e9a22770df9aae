"""Public prices of APIs, from the package genai-prices, which keeps them."""

from __future__ import annotations

from weir.errors import ConfigError


def api_prices(name: str) -> tuple[float, float]:
    """USD per million prompt and output tokens of ``PROVIDER:MODEL``, or of ``IN,OUT`` itself.

    Raises:
        ConfigError: neither two numbers nor a model that the package knows.
    """
    given = name.split(",")
    if len(given) == 2:
        try:
            return float(given[0]), float(given[1])
        except ValueError:
            pass
    from genai_prices import Usage, calc_price

    provider, _, model = name.rpartition(":")
    try:
        price = calc_price(
            Usage(input_tokens=1_000_000, output_tokens=1_000_000),
            model_ref=model,
            provider_id=provider or None,
        )
    except LookupError as error:
        raise ConfigError(
            f"--api {name}: neither IN,OUT in USD per million tokens nor a model whose price is "
            f"known ({error})",
            param="api",
        ) from None
    return float(price.input_price), float(price.output_price)
