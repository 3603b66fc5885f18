defmodule Mlx.Axon.Rotary do
  @moduledoc false

  # The frequencies of rotary embeddings as Bumblebee scales them.

  def known?(%{type: type}), do: type in [:linear, :dynamic, :longrope, :llama3]
  def known?(strategy), do: strategy == nil

  @doc """
  The angles from one position to the next, and what the result is multiplied by.

  `length` is that of the sequence as far as there are keys.
  """
  def frequencies(length, opts) do
    scale(opts[:scaling_strategy], length, opts[:size], opts[:base], opts[:max_positions])
  end

  defp scale(nil, _length, size, base, _positions), do: {inverse(size, base), 1.0}

  defp scale(%{type: :linear, factor: factor}, _length, size, base, _positions),
    do: {size |> inverse(base) |> Enum.map(&(&1 / factor)), 1.0}

  defp scale(%{type: :dynamic, factor: factor}, length, size, base, positions)
       when length > positions do
    base = :math.pow(base * (factor * length / positions - (factor - 1)), size / (size - 2))
    {inverse(size, base), 1.0}
  end

  defp scale(%{type: :dynamic}, _length, size, base, _positions), do: {inverse(size, base), 1.0}

  defp scale(%{type: :longrope} = strategy, length, size, base, positions) do
    %{original_max_positions: original} = strategy
    factors = if length > original, do: strategy.long_factor, else: strategy.short_factor
    scale = positions / original
    factor = if scale <= 1, do: 1.0, else: :math.sqrt(1 + :math.log(scale) / :math.log(original))
    {Enum.zip_with(inverse(size, base), factors, &(&1 / &2)), factor}
  end

  defp scale(%{type: :llama3} = strategy, _length, size, base, _positions),
    do: {size |> inverse(base) |> Enum.map(&llama3(&1, strategy)), 1.0}

  # Waves that fit into the original length stay, long ones are stretched, and those between
  # are a mixture.
  defp llama3(frequency, %{factor: factor, original_max_positions: original} = strategy) do
    waves = original * frequency / (2 * :math.pi())
    %{low_frequency_factor: low, high_frequency_factor: high} = strategy

    cond do
      waves > high ->
        frequency

      waves < low ->
        frequency / factor

      true ->
        share = (waves - low) / (high - low)
        (1 - share) * frequency / factor + share * frequency
    end
  end

  defp inverse(size, base),
    do: for(pair <- 0..(div(size, 2) - 1), do: :math.pow(base, -2 * pair / size))
end
