defmodule Mlx.Fast.RoPE do
  @moduledoc false

  import Mlx.Fast.Operand

  # The position is a number, or `nil` if it is the second operand.
  defstruct [:dims, :traditional, :base, :scale, :position]

  @options [dims: nil, traditional: false, base: nil, scale: 1.0, frequencies: nil]

  def run(x, position, opts) do
    opts = Keyword.validate!(opts, @options)
    x = ranked!(:rope, "a tensor", x, 2)
    position = integers!(:rope, "the position", position)
    type = type!(:rope, [x])
    block = block(opts, last(x))

    frequencies =
      vector(:rope, "frequencies", tensor(opts[:frequencies]), div(block.dims, 2), wide(type))

    {x, restore, block, position} = placed(x, position, block)
    args = [Nx.as_type(x, type) | Enum.reject([position, frequencies], &is_nil/1)]
    block |> Nx.block(args, Nx.to_template(hd(args)), default(length(args))) |> restore.()
  end

  defp block(opts, size) do
    base =
      case opts[:base] && opts[:frequencies] do
        nil -> if opts[:base], do: number!(:rope, opts, :base), else: 10_000
        _both -> raise ArgumentError, "Mlx.Fast.rope takes either :base or :frequencies"
      end

    unless base > 0, do: wrong_option(:rope, "a positive number", :base, base)

    %__MODULE__{
      dims: dims!(opts[:dims] || size, size),
      traditional: boolean!(:rope, opts, :traditional),
      base: opts[:frequencies] == nil && base,
      scale: number!(:rope, opts, :scale)
    }
  end

  defp dims!(dims, size)
       when is_integer(dims) and dims > 0 and rem(dims, 2) == 0 and dims <= size,
       do: dims

  defp dims!(dims, size),
    do: wrong_option(:rope, "an even number from 2 to #{size}", :dims, dims)

  defp placed(x, position, block) when is_integer(position) do
    {x, restore} = plain(x)
    {x, restore, %{block | position: position}, nil}
  end

  defp placed(x, position, block) do
    {[x, position], restore} = batched([x, position], tuple_size(x.shape) > 2)
    check_position!(x.shape, position)
    {x, restore, block, position}
  end

  defp check_position!(x, %{shape: shape} = position) do
    rank = tuple_size(x)
    {batch, length} = {elem(x, 0), elem(x, rank - 2)}

    unless shape == {} or (rank > 2 and shape in [{batch}, {batch, length}, {1, length}]) do
      refuse(:rope, "a position, or one for each of a batch, for #{inspect(x)}", position)
    end
  end

  defp default(1), do: fn block, x -> compose(block, x, block.position, nil) end

  defp default(2) do
    fn
      %{position: nil} = block, x, position -> compose(block, x, position, nil)
      block, x, frequencies -> compose(block, x, block.position, frequencies)
    end
  end

  defp default(3), do: &compose/4

  def compose(%{dims: dims} = block, x, position, frequencies) do
    wide = Nx.as_type(x, wide(x.type))

    turned =
      wide
      |> Nx.slice_along_axis(0, dims, axis: -1)
      |> turn(block, angles(block, wide, position, frequencies))

    size = last(x)

    if dims == size do
      turned
    else
      Nx.concatenate([turned, Nx.slice_along_axis(wide, dims, size - dims, axis: -1)], axis: -1)
    end
    |> Nx.as_type(x.type)
  end

  # One for each pair along the last axis, with an axis of size 1 for each but the batch's and
  # the last two.
  defp angles(%{scale: scale} = block, %{type: type, shape: shape}, position, frequencies) do
    rank = tuple_size(shape)
    length = elem(shape, rank - 2)
    positions = positions(position, length, type)
    scaled = Nx.multiply(positions, constant(scale, type))
    frequencies = frequencies || default_frequencies(block, type)
    angles = Nx.multiply(Nx.new_axis(scaled, -1), frequencies)

    case angles.shape do
      {_, _} -> angles
      {batch, _, half} -> Nx.reshape(angles, spread([batch], [length, half], rank))
    end
  end

  defp spread(front, back, rank),
    do: List.to_tuple(front ++ List.duplicate(1, rank - length(front ++ back)) ++ back)

  defp positions(position, length, type) when is_integer(position),
    do: Nx.add(Nx.iota({length}, type: type), constant(position, type))

  defp positions(%{shape: {_, _}} = position, _length, type), do: Nx.as_type(position, type)

  defp positions(position, length, type) do
    position = Nx.as_type(position, type)
    position = if position.shape == {}, do: position, else: Nx.new_axis(position, -1)
    Nx.add(position, Nx.iota({length}, type: type))
  end

  defp default_frequencies(%{dims: dims, base: base}, type) do
    for(pair <- 0..(div(dims, 2) - 1), do: base ** (-2 * pair / dims)) |> Nx.tensor(type: type)
  end

  defp turn(x, %{traditional: traditional, dims: dims}, angles) do
    {axis, pairs} = if traditional, do: {-1, [div(dims, 2), 2]}, else: {-2, [2, div(dims, 2)]}
    lead = x.shape |> Tuple.to_list() |> Enum.drop(-1)
    paired = Nx.reshape(x, List.to_tuple(lead ++ pairs))

    [a, b] =
      for at <- [0, 1],
          do: paired |> Nx.slice_along_axis(at, 1, axis: axis) |> Nx.squeeze(axes: [axis])

    {cos, sin} = {Nx.cos(angles), Nx.sin(angles)}
    first = Nx.subtract(Nx.multiply(a, cos), Nx.multiply(b, sin))
    second = Nx.add(Nx.multiply(a, sin), Nx.multiply(b, cos))
    Nx.stack([first, second], axis: axis) |> Nx.reshape(x.shape)
  end
end
