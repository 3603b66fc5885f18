defmodule Mlx.Fast.Attention do
  @moduledoc false

  import Mlx.Fast.Operand
  alias Mlx.Fast.Mask

  # A causal one lets the last query see all keys, one with a position those up to that of each
  # query. The position, or else the mask, is the operand after the values.
  defstruct [:scale, :causal, :position?, :mask?, :sinks?]

  @name :scaled_dot_product_attention
  @options [:scale, :mask, :position, :lengths, :sinks, causal: false]

  def run(q, k, v, opts) do
    opts = Keyword.validate!(opts, @options)
    causal = boolean!(@name, opts, :causal)
    [q, k, v] = for x <- [q, k, v], do: Nx.to_tensor(x)
    check!(q, k, v)
    scale = opts[:scale] || 1 / :math.sqrt(last(q))
    number!(@name, [scale: scale], :scale)
    type = type!(@name, [q, k, v])
    heads = elem(q.shape, 1)
    sinks = vector(@name, "sinks", tensor(opts[:sinks]), heads, type)
    {mask, opts} = Mask.operands(opts, {elem(q.shape, 0), heads, places(q), places(k)})

    {[q, k, v, mask, position, lengths], restore} =
      batched([q, k, v, mask, opts[:position], opts[:lengths]], true)

    [q, k, v] = for x <- [q, k, v], do: Nx.as_type(x, type)
    sees = %{causal: causal, position: position || opts[:number], lengths: lengths, mask: mask}
    {k, v, causal, mask} = Mask.combine(sees, k, v, places(q), type)
    {causal, position} = if is_boolean(causal), do: {causal, nil}, else: {false, causal}

    block = %__MODULE__{
      scale: scale,
      causal: causal,
      position?: position != nil,
      mask?: mask != nil,
      sinks?: sinks != nil
    }

    args = [q, k, v | Enum.reject([position, mask, sinks], &is_nil/1)]
    out = Nx.template(put_elem(q.shape, 3, last(v)), type)
    block |> Nx.block(args, out, default(length(args))) |> restore.()
  end

  defp places(x), do: elem(x.shape, 2)

  defp check!(%{shape: {batch, heads, _, size}} = q, %{shape: {batch, groups, keys, size}} = k, v) do
    if rem(heads, groups) != 0,
      do: refuse(@name, "heads of which there are a multiple of the #{groups} of keys", q)

    unless match?({^batch, ^groups, ^keys, _}, v.shape),
      do: refuse(@name, "as many values as there are keys in #{inspect(k.shape)}", v)
  end

  defp check!(%{shape: {batch, _heads, _length, size}}, k, _v),
    do: refuse(@name, "keys {#{batch}, heads, length, #{size}} for such queries", k)

  defp check!(q, _k, _v), do: refuse(@name, "queries {batch, heads, length, size}", q)

  defp default(3), do: fn block, q, k, v -> compose(block, q, k, v, []) end
  defp default(4), do: fn block, q, k, v, a -> compose(block, q, k, v, [a]) end
  defp default(5), do: fn block, q, k, v, a, b -> compose(block, q, k, v, [a, b]) end

  def compose(block, q, k, v, rest) do
    type = wide(q.type)
    {batch, heads, _length, _size} = q.shape
    groups = elem(k.shape, 1)
    [wide_q, wide_k, wide_v] = for x <- [q, k, v], do: Nx.as_type(x, type)
    # Those heads of queries are next to each other that see the same keys.
    grouped = Nx.multiply(wide_q, constant(block.scale, type)) |> grouped(groups)
    {mask, rest} = mask(block, rest, places(q), places(k))

    sinks =
      if block.sinks?,
        do: rest |> hd() |> Nx.as_type(type) |> Nx.reshape({1, groups, div(heads, groups), 1, 1})

    grouped
    |> Nx.dot([4], [0, 1], wide_k, [3], [0, 1])
    |> masked(mask, groups)
    |> weights(sinks)
    |> Nx.dot([4], [0, 1], wide_v, [2], [0, 1])
    |> Nx.reshape({batch, heads, places(q), last(v)})
    |> Nx.as_type(q.type)
  end

  defp mask(%{causal: true}, rest, queries, keys), do: {Mask.causal(queries, keys), rest}

  defp mask(%{position?: true}, [position | rest], queries, keys),
    do: {Mask.seen(position, queries, keys), rest}

  defp mask(%{mask?: true}, [mask | rest], _queries, _keys), do: {mask, rest}
  defp mask(_block, rest, _queries, _keys), do: {nil, rest}

  # An axis of heads as two, the first of those of keys.
  defp grouped(%{shape: {batch, 1, length, size}} = x, _groups),
    do: Nx.reshape(x, {batch, 1, 1, length, size})

  defp grouped(%{shape: {batch, heads, length, size}} = x, groups),
    do: Nx.reshape(x, {batch, groups, div(heads, groups), length, size})

  defp masked(scores, nil, _groups), do: scores

  defp masked(scores, %{type: {:u, 8}} = mask, groups) do
    seen = mask |> grouped(groups) |> Nx.broadcast(scores.shape)
    Nx.select(seen, scores, Nx.Constants.min_finite(scores.type))
  end

  defp masked(scores, mask, groups),
    do: Nx.add(scores, mask |> grouped(groups) |> Nx.as_type(scores.type))

  defp weights(scores, sinks) do
    largest = Nx.reduce_max(scores, axes: [-1], keep_axes: true)
    largest = fixed(if sinks, do: Nx.max(largest, sinks), else: largest)
    powers = Nx.exp(Nx.subtract(scores, largest))
    sum = Nx.sum(powers, axes: [-1], keep_axes: true)
    sum = if sinks, do: Nx.add(sum, Nx.exp(Nx.subtract(sinks, largest))), else: sum
    Nx.divide(powers, sum)
  end
end
