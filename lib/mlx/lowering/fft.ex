defmodule Mlx.Lowering.FFT do
  @moduledoc false

  use Mlx.Graph
  import Mlx.Lowering.Shape, only: [cast: 2]

  alias Nx.Block.{FFT2, IFFT2, IRFFT, RFFT}

  def ops, do: [:fft, :ifft]

  for name <- [:fft, :ifft] do
    def lower(unquote(name), out, [x, opts]) do
      transform(unquote(name), x, opts[:length], opts[:axis], opts[:eps], out.type)
    end
  end

  def blocks, do: [FFT2, IFFT2, RFFT, IRFFT]

  def lower_block(%FFT2{} = block, out, [x]), do: transform_2d(:fft, block, out, x)
  def lower_block(%IFFT2{} = block, out, [x]), do: transform_2d(:ifft, block, out, x)

  def lower_block(%RFFT{length: length, axis: axis, eps: eps}, out, [x]) do
    op(:rfft, [cast(x, {:f, 32})], [length, axis, eps], out.type, out.shape)
  end

  def lower_block(%IRFFT{length: length, axis: axis, eps: eps}, out, [x]) do
    op(:irfft, [cast(x, {:c, 64})], [length, axis, eps], {:f, 32}, out.shape) |> cast(out.type)
  end

  defp transform_2d(name, %{lengths: [rows, columns], axes: [first, second], eps: eps}, out, x) do
    x = transform(name, x, columns, second, eps, out.type)
    transform(name, x, rows, first, eps, out.type)
  end

  for name <- [:fft, :ifft] do
    defp transform(unquote(name), x, length, axis, eps, type) do
      shape = put_elem(x.shape, axis, length)
      op(unquote(name), [cast(x, type)], [length, axis, eps], type, shape)
    end
  end
end
