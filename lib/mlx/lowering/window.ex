defmodule Mlx.Lowering.Window do
  @moduledoc false

  use Mlx.Graph
  import Mlx.Lowering.Creation, only: [full: 2]
  import Mlx.Lowering.Shape, only: [cast: 2, pad: 4, reshape: 2]

  @reductions [:window_sum, :window_product, :window_max, :window_min]
  @scatters [:window_scatter_max, :window_scatter_min]

  def ops, do: @reductions ++ @scatters ++ [:window_reduce]

  for name <- @reductions do
    def lower(unquote(name), out, [x, sizes, opts]) do
      x = surround(x, neutral(unquote(name), out.type), opts[:padding])
      attributes = [Tuple.to_list(sizes), opts[:strides], opts[:window_dilations]]
      op(unquote(name), [x], attributes, out.type, out.shape)
    end
  end

  for name <- @scatters do
    def lower(unquote(name), out, [x, source, initial, sizes, opts]) do
      type = comparison_type(x, initial)
      Nx.Shared.raise_complex_not_supported(type, unquote(name), 5)
      # Nx pads with the initial value, and so lets it win.
      padded = x |> cast(type) |> surround(initial, opts[:padding])
      initial = initial |> cast(out.type) |> reshape({})
      operands = [padded, cast(source, out.type), initial]
      attributes = [Tuple.to_list(sizes), opts[:strides]]

      # No window reaches what negative padding takes away.
      op(unquote(name), operands, attributes, out.type, padded.shape)
      |> pad(initial, cut(opts[:padding]), out.shape)
    end
  end

  # The function and what it captures stand in the place of the callback's function.
  def lower(:window_reduce, out, [x, initial, captured, function, sizes, opts]) do
    windows = [Tuple.to_list(sizes), opts[:strides], opts[:window_dilations]]

    surround(x, initial, opts[:padding])
    |> fold(initial, captured, function, windows, out.shape)
    |> cast(out.type)
  end

  @doc """
  Folds windows of the given sizes, strides and dilations with a `Mlx.Function`.
  """
  def fold(x, initial, captured, function, [sizes, strides, dilations], shape) do
    operands = [x, initial |> cast(function.type) |> reshape({}) | captured]
    attributes = [sizes, strides, dilations, function.program]
    op(:window_fold, operands, attributes, function.type, shape)
  end

  defp surround(x, value, padding) do
    dims = Tuple.to_list(x.shape)
    shape = Enum.zip_with(dims, padding, fn dim, {low, high} -> low + dim + high end)
    pad(x, value, Enum.map(padding, &Tuple.insert_at(&1, 2, 0)), List.to_tuple(shape))
  end

  defp cut(padding), do: Enum.map(padding, fn {low, high} -> {-low, -high, 0} end)

  defp neutral(:window_sum, type), do: full(0, type)
  defp neutral(:window_product, type), do: full(1, type)

  defp neutral(:window_max, type),
    do: op(:full, [], [Nx.Type.min_binary(type), [], type], type, {})

  defp neutral(:window_min, type),
    do: op(:full, [], [Nx.Type.max_binary(type), [], type], type, {})

  # As Nx pads a tensor with a number: an integer takes the type of the tensor.
  defp comparison_type(%{type: {kind, _} = type}, %{type: {:u, _}}) when kind in [:u, :s],
    do: type

  defp comparison_type(%{type: {:u, 64} = type}, %{type: {:s, _}}), do: type

  defp comparison_type(%{type: {kind, _} = type}, %{type: {other, _} = initial})
       when kind in [:u, :s] and other in [:u, :s],
       do: Nx.Type.merge(type, initial)

  defp comparison_type(%{type: {kind, _}}, %{type: _float}) when kind in [:u, :s], do: {:f, 32}
  defp comparison_type(%{type: type}, _initial), do: type
end
