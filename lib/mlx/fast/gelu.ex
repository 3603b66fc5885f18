defmodule Mlx.Fast.GELU do
  @moduledoc false

  import Mlx.Fast.Operand

  defstruct [:approximate]

  @approximations [:none, :tanh, :sigmoid]

  def run(x, opts) do
    approximate = Keyword.validate!(opts, approximate: :none)[:approximate]

    unless approximate in @approximations,
      do: wrong_option(:gelu, "one of #{inspect(@approximations)}", :approximate, approximate)

    x = Nx.to_tensor(x)
    type = type!(:gelu, [x])
    {x, restore} = plain(x)
    x = Nx.as_type(x, type)
    block = %__MODULE__{approximate: approximate}
    block |> Nx.block([x], Nx.to_template(x), &compose/2) |> restore.()
  end

  def compose(%{approximate: approximate}, x) do
    wide = Nx.as_type(x, wide(x.type))
    wide |> share(approximate) |> Nx.multiply(wide) |> Nx.as_type(x.type)
  end

  # Of a normal distribution what is below the number. One less an error function would cancel.
  defp share(x, :none) do
    complement = x |> times(-:math.sqrt(0.5)) |> Nx.erfc()
    times(complement, 0.5)
  end

  defp share(x, :tanh) do
    cubic = x |> Nx.multiply(x) |> Nx.multiply(x) |> times(0.044715)
    share = x |> Nx.add(cubic) |> times(:math.sqrt(2 / :math.pi())) |> Nx.tanh()
    share |> Nx.add(1) |> times(0.5)
  end

  defp share(x, :sigmoid), do: x |> times(1.702) |> Nx.sigmoid()

  defp times(x, number), do: Nx.multiply(x, constant(number, x.type))
end
