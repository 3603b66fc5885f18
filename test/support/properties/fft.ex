defmodule Mlx.Properties.FFT do
  @moduledoc false

  use ExUnitProperties
  import StreamData
  import Mlx.Generators
  import Mlx.Samples, only: [narrow_floats: 0]

  # Of f64 it would be c128, which MLX lacks.
  @types Mlx.Samples.types() -- [:f64]
  @real @types -- [:c64]
  @close [scale: 64.0, signed_zero: false]

  def all do
    for(op <- [:fft, :ifft], do: {op, transform(op)}) ++
      for({block, op} <- [{Nx.Block.FFT2, :fft2}, {Nx.Block.IFFT2, :ifft2}]) do
        {block, transform_2d(op)}
      end ++
      [
        {Nx.Block.RFFT, rfft()},
        {Nx.Block.IRFFT, irfft()},
        {"rfft and irfft are inverse", inverse()}
      ]
  end

  defp transform(op) do
    gen all type <- member_of(@types ++ narrow_floats()),
            rank <- integer(1..3),
            shape <- shape(rank, 2..12),
            x <- tensor(type, shape, small: true),
            axis <- integer(-rank..(rank - 1)),
            length <- integer(2..24) do
      fun = &apply(Nx, op, [&1, [axis: axis, length: length]])
      # Nx.BinaryBackend mixes up the other axes of one that is not the last.
      {fun, [x], [oracle: along_last(op, axis, length)] ++ @close}
    end
  end

  defp along_last(op, axis, length) do
    fn x ->
      order = x |> Nx.axes() |> swap(axis)
      last = apply(Nx, op, [Nx.transpose(x, axes: order), [length: length]])
      Nx.transpose(last, axes: order)
    end
  end

  defp swap(axes, axis) do
    {from, to} = {Enum.at(axes, axis), List.last(axes)}
    axes |> List.replace_at(axis, to) |> List.replace_at(-1, from)
  end

  defp transform_2d(op) do
    gen all type <- member_of(@types),
            rows <- integer(2..6),
            columns <- integer(2..6),
            x <- tensor(type, {rows, columns}, small: true),
            lengths <- list_of(integer(2..9), length: 2),
            axes <- member_of([[0, 1], [1, 0], [-2, -1]]) do
      {&apply(Nx, op, [&1, [axes: axes, lengths: lengths]]), [x], @close}
    end
  end

  defp rfft do
    gen all type <- member_of(@real), {x, options} <- with_options(type, 2..20) do
      {&Nx.rfft(&1, options), [x], @close}
    end
  end

  # Nx.BinaryBackend gives f32 for the halves, and can't mirror less than two numbers.
  defp irfft do
    gen all type <- member_of([:c64, :f32, :s32, :u8]), {x, options} <- with_options(type, 3..20) do
      {&Nx.irfft(&1, options), [x], @close}
    end
  end

  defp with_options(type, lengths) do
    gen all rank <- integer(1..2),
            shape <- shape(rank, 3..12),
            x <- tensor(type, shape, small: true),
            axis <- integer(0..(rank - 1)),
            length <- integer(lengths) do
      {x, [axis: axis, length: length]}
    end
  end

  defp inverse do
    gen all shape <- shape(2, 3..40), x <- tensor(:f32, shape) do
      back = fn x -> x |> Nx.rfft() |> Nx.irfft(length: elem(shape, 1)) end
      {back, [x], oracle: & &1, scale: 32.0, signed_zero: false}
    end
  end
end
