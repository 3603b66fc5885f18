defmodule Mlx.Generation.Sampler do
  @moduledoc false

  # From logits to a token. Which filters there are shapes the program; their numbers are
  # tensors, so that others need no new one.

  @enforce_keys [:top_k, :numbers]
  defstruct [:top_k, :numbers]

  @numbers [:temperature, :top_p, :min_p, :repetition_penalty]

  @doc """
  The filters of options, and the tensors of their numbers in that order.
  """
  def new(opts) do
    temperature = number!(opts, :temperature, &(&1 >= 0), "a number from 0 on") || 0.0

    number!(opts, :top_p, &(&1 > 0 and &1 <= 1), "a number above 0, up to 1")
    number!(opts, :min_p, &(&1 >= 0 and &1 <= 1), "a number from 0 to 1")
    number!(opts, :repetition_penalty, &(&1 > 0), "a number above 0")
    top_k = top_k!(opts[:top_k])

    # The likeliest token is the likeliest with any filter.
    {top_k, names} =
      if temperature == 0, do: {nil, [:repetition_penalty]}, else: {top_k, @numbers}

    given = for name <- names, number = opts[name], do: {name, Nx.tensor(number, type: :f32)}
    {names, tensors} = Enum.unzip(given)
    {%__MODULE__{top_k: top_k, numbers: names}, List.to_tuple(tensors)}
  end

  defp number!(opts, name, valid?, wanted) do
    case opts[name] do
      nil ->
        nil

      number ->
        if is_number(number) and valid?.(number), do: number, else: refuse(name, wanted, number)
    end
  end

  defp top_k!(nil), do: nil
  defp top_k!(k) when is_integer(k) and k > 0, do: k
  defp top_k!(other), do: refuse(:top_k, "a positive integer", other)

  defp refuse(name, wanted, other),
    do: raise(ArgumentError, "#{inspect(name)} is #{wanted}, got: #{inspect(other)}")

  def random?(%__MODULE__{numbers: numbers}), do: :temperature in numbers
  def penalty?(%__MODULE__{numbers: numbers}), do: :repetition_penalty in numbers

  @doc """
  The tokens of logits `{batch, vocabulary}`, and the next key. `past` are the latest tokens,
  `{batch, count}`, if there is a penalty for them.
  """
  def sample(sampler, logits, numbers, key, past) do
    numbers = sampler.numbers |> Enum.zip(Tuple.to_list(numbers)) |> Map.new()
    # The likeliest of halves is the same in f32, but for the penalty.
    wide? = random?(sampler) or penalty?(sampler)
    logits = if wide?, do: Nx.as_type(logits, :f32), else: logits
    logits = penalize(logits, numbers[:repetition_penalty], past)

    if random?(sampler) do
      logits |> Nx.divide(numbers.temperature) |> candidates(sampler) |> draw(numbers, key)
    else
      {Nx.argmax(logits, axis: -1, type: :s32), key}
    end
  end

  defp penalize(logits, nil, _past), do: logits

  # A token that is there twice is written twice, with the same number.
  defp penalize(logits, penalty, %{shape: {batch, count}} = past) do
    found = Nx.take_along_axis(logits, past, axis: -1)
    less = Nx.select(Nx.greater(found, 0), Nx.divide(found, penalty), Nx.multiply(found, penalty))
    rows = Nx.iota({batch, count}, axis: 0, type: past.type)
    places = Nx.stack([rows, past], axis: -1) |> Nx.reshape({batch * count, 2})
    Nx.indexed_put(logits, places, Nx.reshape(less, {batch * count}))
  end

  # The logits among which to choose, and which tokens they are of.
  defp candidates(%{shape: {_, size}} = logits, %{top_k: k}) when k != nil,
    do: Nx.top_k(logits, k: min(k, size))

  defp candidates(logits, %{numbers: numbers}) do
    if :top_p in numbers do
      order = Nx.argsort(logits, axis: -1, direction: :desc, stable: true)
      {Nx.take_along_axis(logits, order, axis: -1), order}
    else
      {logits, nil}
    end
  end

  # The first token at which the sum of the weights passes a random part of all.
  defp draw({logits, order}, numbers, key) do
    weights = logits |> Mlx.Fast.softmax() |> top_p(numbers[:top_p]) |> min_p(numbers[:min_p])
    sums = Nx.cumulative_sum(weights, axis: -1)
    total = sums[[.., -1]]
    {part, key} = Nx.Random.uniform(key, shape: total.shape, type: :f32)
    passed = Nx.greater(sums, total |> Nx.multiply(part) |> Nx.new_axis(-1))
    at = passed |> Nx.logical_and(Nx.greater(weights, 0)) |> Nx.argmax(axis: -1, type: :s32)
    {token(order, at), key}
  end

  defp token(nil, at), do: at

  defp token(order, at) do
    order
    |> Nx.take_along_axis(Nx.new_axis(at, -1), axis: -1)
    |> Nx.squeeze(axes: [-1])
    |> Nx.as_type(:s32)
  end

  defp top_p(weights, nil), do: weights

  defp top_p(weights, top_p) do
    before = weights |> Nx.cumulative_sum(axis: -1) |> Nx.subtract(weights)
    # Nothing is before the first one, whatever rounding makes of that.
    first = Nx.equal(Nx.iota(weights.shape, axis: -1), 0)
    Nx.select(Nx.logical_or(first, Nx.less(before, top_p)), weights, 0.0)
  end

  defp min_p(weights, nil), do: weights

  defp min_p(weights, min_p) do
    least = weights |> Nx.reduce_max(axes: [-1], keep_axes: true) |> Nx.multiply(min_p)
    Nx.select(Nx.greater_equal(weights, least), weights, 0.0)
  end
end
