defmodule Mlx.Fast.RMSNorm do
  @moduledoc false

  import Mlx.Fast.Operand

  defstruct [:eps]

  def run(x, weight, opts) do
    block = struct!(__MODULE__, Keyword.validate!(opts, eps: 1.0e-5))
    number!(:rms_norm, opts(block), :eps)
    x = ranked!(:rms_norm, "a tensor", x, 1)
    type = type!(:rms_norm, [x, weight && Nx.to_tensor(weight)])
    weight = vector(:rms_norm, "weight", weight, x, type)
    {x, restore} = plain(x)
    x = Nx.as_type(x, type)

    case weight do
      nil -> Nx.block(block, [x], Nx.to_template(x), &compose/2)
      weight -> Nx.block(block, [x, weight], Nx.to_template(x), &compose/3)
    end
    |> restore.()
  end

  defp opts(block), do: block |> Map.from_struct() |> Map.to_list()

  def compose(block, x, weight), do: block |> compose(x) |> Nx.multiply(weight)

  def compose(%{eps: eps}, x) do
    wide = Nx.as_type(x, wide(x.type))
    squares = wide |> Nx.multiply(wide) |> Nx.mean(axes: [-1], keep_axes: true)

    wide
    |> Nx.multiply(Nx.rsqrt(Nx.add(squares, constant(eps, squares.type))))
    |> Nx.as_type(x.type)
  end
end
