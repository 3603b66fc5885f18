defmodule Mlx.Properties.Convolution do
  @moduledoc false

  use ExUnitProperties
  import StreamData
  import Mlx.Generators

  @types Mlx.Samples.types() ++ Mlx.Samples.narrow_floats()

  def all, do: [conv: conv()]

  defp conv do
    gen all type <- member_of(@types),
            kernel_type <- member_of([type, type, :u8]),
            rank <- integer(1..3),
            grouped <- member_of([:none, :features, :batch]),
            groups <- if(grouped == :none, do: constant(1), else: integer(1..3)),
            {batch, inputs, outputs} <- {integer(1..2), integer(1..2), integer(1..2)},
            axes <- per_axis(axis(), rank),
            {x_dims, sizes} = Enum.unzip(for(axis <- axes, do: {axis.dim, axis.size})),
            batch = if(grouped == :batch, do: batch * groups, else: batch),
            channels = if(grouped == :batch, do: inputs, else: inputs * groups),
            orders <- list_of(shuffle(0..(rank + 1)), length: 3),
            x <- tensor(type, List.to_tuple([batch, channels | x_dims]), small: true),
            kernels <-
              tensor(kernel_type, List.to_tuple([outputs * groups, inputs | sizes]), small: true) do
      [input, kernel, output] = orders

      options = [
        strides: Enum.map(axes, & &1.stride),
        padding: Enum.map(axes, & &1.padding),
        input_dilation: Enum.map(axes, & &1.between),
        kernel_dilation: Enum.map(axes, & &1.dilation),
        feature_group_size: if(grouped == :features, do: groups, else: 1),
        batch_group_size: if(grouped == :batch, do: groups, else: 1),
        input_permutation: input,
        kernel_permutation: kernel,
        output_permutation: output
      ]

      args = [Nx.transpose(x, axes: inverse(input)), Nx.transpose(kernels, axes: inverse(kernel))]
      {&Nx.conv(&1, &2, options), args, close(Nx.Type.merge(x.type, kernels.type), options)}
    end
  end

  # One axis of what slides, and of the kernels that fit into it.
  defp axis do
    gen all size <- integer(1..3),
            stride <- integer(1..3),
            dilation <- integer(1..3),
            between <- integer(1..2),
            {low, high} <- {integer(-1..4), integer(-1..4)},
            room <- integer(0..3) do
      reach = (size - 1) * dilation + 1 - low - high
      dim = max(div(max(reach - 1, 0) + between - 1, between) + 1, 1) + room

      %{
        size: size,
        stride: stride,
        dilation: dilation,
        between: between,
        padding: {low, high},
        dim: dim
      }
    end
  end

  defp inverse(order), do: order |> Enum.with_index() |> Enum.sort() |> Enum.map(&elem(&1, 1))

  # Nx.BinaryBackend rounds each sum of narrow floats, and pads f8_e4m3fn with something else.
  defp close({kind, 8} = type, options) when kind in [:f, :f8_e4m3fn] do
    wide = &(&1 |> Nx.as_type(:f32) |> Nx.conv(Nx.as_type(&2, :f32), options) |> Nx.as_type(type))
    [oracle: wide, ulps: 1, signed_zero: false]
  end

  defp close(_type, _options), do: [scale: 256.0, signed_zero: false]
end
