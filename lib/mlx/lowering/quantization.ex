defmodule Mlx.Lowering.Quantization do
  @moduledoc false

  # A quantized tensor is the row `dequantize` on its parts. What can do without the
  # numbers, products and rows that are looked up, takes the parts instead, and then
  # nothing runs `dequantize`.

  use Mlx.Graph
  import Mlx.Lowering.Shape, only: [broadcast_to: 2, cast: 2, reshape: 2, transpose: 2]

  alias Mlx.Graph
  alias Mlx.Quantization.Block

  @floats [{:f, 32}, {:f, 16}, {:bf, 16}]

  # Nx has no callbacks for these.
  def ops, do: []

  def blocks, do: [Block.Quantize, Block.Dequantize, Block.GatherMM]

  def lower_block(%Block.Quantize{mode: :affine} = block, {packed, scales, biases}, [x]) do
    [packed, scales, biases] = for out <- [packed, scales, biases], do: {out.type, out.shape}

    ops(:quantize_affine, [x], [block.group_size, block.bits], [packed, scales, biases])
    |> List.to_tuple()
  end

  def lower_block(%Block.Quantize{} = block, {packed, scales}, [x]) do
    [packed, scales] = for out <- [packed, scales], do: {out.type, out.shape}
    ops(:quantize_float, [x], format(block), [packed, scales]) |> List.to_tuple()
  end

  def lower_block(%Block.Dequantize{} = block, out, parts) do
    shape = if block.transposed, do: swap(out.shape), else: out.shape
    node = dequantized(parts, format(block), out.type, shape)
    if block.transposed, do: transpose(node, swapped(shape)), else: node
  end

  def lower_block(%Block.GatherMM{}, out, [x, w, indices]) do
    batch = out.shape |> Tuple.to_list() |> Enum.drop(-2) |> List.to_tuple()
    indices = broadcast_to(indices, batch)
    type = product_type(out.type, x.type)
    x = cast(x, type)

    case weight(w) do
      %{axes: [0, axis, _]} = weight ->
        operands = [x, indices | cast_parts(weight, type)]
        op(:gather_qmm, operands, weight.format ++ [axis == 2], type, out.shape)

      _none ->
        op(:gather_mm, [x, cast(w, type), indices], type, out.shape)
    end
    |> cast(out.type)
  end

  defp dequantized(parts, format, type, shape),
    do: op(:dequantize, parts, format ++ [type], type, shape)

  defp format(block), do: [Atom.to_string(block.mode), block.group_size, block.bits]

  ## What is quantized

  @doc """
  What a node has instead of numbers: its parts, their format, the shape of the matrix that
  they are, and for each axis of the node that of the matrix. `nil` if it has none.
  """
  def weight(%Graph{row: :dequantize} = node) do
    format = Enum.take(node.attributes, 3)
    axes = Enum.to_list(0..(tuple_size(node.shape) - 1))
    %{parts: node.operands, format: format, shape: node.shape, axes: axes, type: node.type}
  end

  def weight(%Graph{row: :transpose, operands: [x], attributes: [axes]}) do
    with %{} = weight <- weight(x),
         do: %{weight | axes: Enum.map(axes, &Enum.at(weight.axes, &1))}
  end

  def weight(%Graph{row: :cast, operands: [x], type: type}) when type in @floats, do: weight(x)

  def weight(%Graph{}), do: nil

  @doc """
  Whether a node is a quantized tensor as it is held.
  """
  def deferred?(%Graph{row: row} = node) when row in [:dequantize, :transpose, :cast] do
    case weight(node) do
      %{parts: parts} -> Enum.all?(parts, &Graph.input?/1)
      nil -> false
    end
  end

  def deferred?(%Graph{}), do: false

  ## Products

  @doc """
  The product with a quantized operand, or `nil` if there is none that can be used as it is.
  """
  def dot(out, [a, contract_a, batch_a, b, contract_b, batch_b]) do
    cond do
      weight = weight(b) ->
        product(out, {a, contract_a, batch_a}, {weight, contract_b, batch_b})

      weight = weight(a) ->
        swapped = %{out | shape: turned(out.shape, tuple_size(a.shape), contract_a, batch_a)}

        with %{} = node <-
               product(swapped, {b, contract_b, batch_b}, {weight, contract_a, batch_a}),
             do: turn(node, out.shape, length(batch_a), free(b.shape, contract_b ++ batch_b))

      true ->
        nil
    end
  end

  defp product(out, {x, contract_x, batch_x}, {w, contract_w, batch_w}) do
    rank = tuple_size(w.shape)

    [contract_w, batch_w] =
      for axes <- [contract_w, batch_w], do: Enum.map(axes, &Enum.at(w.axes, &1))

    with [axis] when axis >= rank - 2 <- contract_w,
         true <- batch_w == Enum.to_list(0..(rank - 3)//1),
         type when type in @floats <- product_type(out.type, x.type) do
      free = free(x.shape, contract_x ++ batch_x)
      rows = Enum.product(Enum.map(free, &elem(x.shape, &1)))
      batch = Enum.map(batch_x, &elem(x.shape, &1))
      last = axis == rank - 1
      columns = elem(w.shape, if(last, do: rank - 2, else: rank - 1))

      x =
        x
        |> transpose(batch_x ++ free ++ contract_x)
        |> reshape(List.to_tuple(batch ++ [rows, elem(w.shape, axis)]))
        |> cast(type)

      op(
        :quantized_matmul,
        [x | cast_parts(w, type)],
        w.format ++ [last],
        type,
        List.to_tuple(batch ++ [rows, columns])
      )
      |> reshape(out.shape)
      |> cast(out.type)
    else
      _ -> nil
    end
  end

  # A half can't hold every number that it is multiplied with.
  defp product_type({_, 16} = type, x) when x != type, do: {:f, 32}
  defp product_type(type, _x), do: type

  # The axes of the other operand come before those of the first.
  defp turned(shape, rank, contract, batch) do
    count = rank - length(contract) - length(batch)
    {batch, rest} = shape |> Tuple.to_list() |> Enum.split(length(batch))
    {first, second} = Enum.split(rest, count)
    List.to_tuple(batch ++ second ++ first)
  end

  defp turn(node, shape, batch, free) do
    count = length(free)
    rank = tuple_size(shape)
    {leading, rest} = Enum.split(Enum.to_list(0..(rank - 1)//1), batch)
    {first, second} = Enum.split(rest, count)
    transpose(node, leading ++ second ++ first)
  end

  defp free(shape, taken), do: Enum.to_list(0..(tuple_size(shape) - 1)//1) -- taken

  # Scales of the modes without biases are exponents.
  defp cast_parts(%{parts: [packed, scales, biases]}, type),
    do: [packed, cast(scales, type), cast(biases, type)]

  defp cast_parts(%{parts: parts}, _type), do: parts

  ## Rows

  @doc """
  Rows of a quantized tensor as numbers, or `nil` if it is not quantized along other axes.
  """
  def take(x, indices, axis, out) do
    with %{axes: axes, shape: shape} = weight <- weight(x),
         true <- axes == Enum.sort(axes) and axis < tuple_size(shape) - 1 do
      parts = Enum.map(weight.parts, &taken(&1, indices, axis))
      dequantized(parts, weight.format, weight.type, out.shape) |> cast(out.type)
    else
      _ -> nil
    end
  end

  defp taken(part, indices, axis) do
    {before, [_ | rest]} = part.shape |> Tuple.to_list() |> Enum.split(axis)
    shape = List.to_tuple(before ++ Tuple.to_list(indices.shape) ++ rest)
    op(:take, [part, indices], [axis], part.type, shape)
  end

  defp swapped(shape) do
    {leading, [rows, columns]} = Enum.split(Enum.to_list(0..(tuple_size(shape) - 1)), -2)
    leading ++ [columns, rows]
  end

  defp swap(shape), do: shape |> swapped() |> Enum.map(&elem(shape, &1)) |> List.to_tuple()
end
