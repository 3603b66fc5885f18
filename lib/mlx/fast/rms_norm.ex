defmodule Mlx.Fast.RMSNorm do
  @moduledoc false

  import Mlx.Fast.Operand

  defstruct [:eps]

  def run(x, weight, opts) do
    opts = Keyword.validate!(opts, eps: 1.0e-5)
    block = %__MODULE__{eps: number!(:rms_norm, opts, :eps)}
    {x, weight} = {ranked!(:rms_norm, "a tensor", x, 1), tensor(weight)}
    type = type!(:rms_norm, [x, weight])
    weight = vector(:rms_norm, "weight", weight, last(x), type)
    {x, restore} = plain(x)
    x = Nx.as_type(x, type)

    case weight do
      nil -> Nx.block(block, [x], Nx.to_template(x), &compose/2)
      weight -> Nx.block(block, [x, weight], Nx.to_template(x), &compose/3)
    end
    |> restore.()
  end

  def compose(block, x, weight), do: block |> compose(x) |> Nx.multiply(weight)

  def compose(%{eps: eps}, x) do
    wide = Nx.as_type(x, wide(x.type))
    squares = wide |> Nx.multiply(wide) |> Nx.mean(axes: [-1], keep_axes: true)
    scale = squares |> Nx.add(constant(eps, squares.type)) |> Nx.rsqrt()
    wide |> Nx.multiply(scale) |> Nx.as_type(x.type)
  end
end
