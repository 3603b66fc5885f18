defmodule Mlx.Lowering.Convolution do
  @moduledoc false

  use Mlx.Graph
  import Mlx.Lowering.Creation, only: [full: 2]
  import Mlx.Lowering.Shape, only: [cast: 2, pad: 4, reshape: 2, transpose: 2]

  def ops, do: [:conv]

  def lower(:conv, out, [x, kernels, opts]) do
    {operands, type} = types(x.type, kernels.type, out.type)
    x = x |> transpose(channels_last(opts[:input_permutation])) |> convert(operands)
    kernels = kernels |> transpose(channels_last(opts[:kernel_permutation])) |> convert(operands)
    x = batch_groups_to_channels(x, opts[:batch_group_size])
    {x, padding, dilation} = cut(x, opts[:padding], opts[:input_dilation])
    {low, high} = Enum.unzip(padding)

    attributes = [
      opts[:strides],
      low,
      high,
      dilation,
      opts[:kernel_dilation],
      opts[:feature_group_size] * opts[:batch_group_size]
    ]

    # Where each axis of the result goes, channels last.
    order = channels_last(opts[:output_permutation])
    shape = order |> Enum.map(&elem(out.shape, &1)) |> List.to_tuple()

    op(:convolution, [x, kernels], attributes, type, shape)
    |> transpose(inverse(order))
    |> cast(out.type)
  end

  # The types of the operands, or that they are integers, and the type of the product.
  defp types({a, _}, {b, _}, _out) when a in [:u, :s] and b in [:u, :s], do: {:integer, {:f, 32}}
  # A half can't hold every number of another type.
  defp types(a, b, {_, 16} = out) when a != out or b != out, do: {{:f, 32}, {:f, 32}}
  defp types(_a, _b, out), do: {out, out}

  defp convert(x, :integer), do: x
  defp convert(x, type), do: cast(x, type)

  # Nx lists the batch first (of kernels, the output channels), then the channels.
  defp channels_last([batch, channels | space]), do: [batch | space] ++ [channels]

  defp inverse(order), do: order |> Enum.with_index() |> Enum.sort() |> Enum.map(&elem(&1, 1))

  # Groups of the batch meet different kernels, as groups of channels do.
  defp batch_groups_to_channels(x, 1), do: x

  defp batch_groups_to_channels(x, groups) do
    [batch | rest] = Tuple.to_list(x.shape)
    {space, [channels]} = Enum.split(rest, -1)
    rank = length(space)

    x
    |> reshape(List.to_tuple([groups, div(batch, groups) | rest]))
    |> transpose(Enum.to_list(1..(rank + 1)) ++ [0, rank + 2])
    |> reshape(List.to_tuple([div(batch, groups) | space] ++ [groups * channels]))
  end

  # Negative padding cuts what dilation has spread.
  defp cut(x, padding, dilation) do
    if Enum.any?(padding, fn {low, high} -> low < 0 or high < 0 end) do
      config = Enum.zip_with(padding, dilation, fn {low, high}, step -> {low, high, step - 1} end)
      config = [{0, 0, 0} | config] ++ [{0, 0, 0}]
      shape = Nx.Shape.pad(x.shape, config)
      x = pad(x, full(0, x.type), config, shape)
      {x, Enum.map(padding, fn _ -> {0, 0} end), Enum.map(dilation, fn _ -> 1 end)}
    else
      {x, padding, dilation}
    end
  end
end
