defmodule Mlx.Fast.SwiGLU do
  @moduledoc false

  import Mlx.Fast.Operand

  defstruct []

  def run(gate, up) do
    {gate, up} = {Nx.to_tensor(gate), Nx.to_tensor(up)}
    type = type!(:swiglu, [gate, up])

    if gate.shape != up.shape,
      do: refuse(:swiglu, "two tensors of one shape, #{inspect(gate.shape)}", up)

    [gate, up] = Nx.broadcast_vectors([gate, up])
    {gate, restore} = plain(gate)
    {up, _} = plain(up)
    args = for x <- [gate, up], do: Nx.as_type(x, type)
    %__MODULE__{} |> Nx.block(args, Nx.to_template(hd(args)), &compose/3) |> restore.()
  end

  def compose(%__MODULE__{}, gate, up) do
    [wide, wide_up] = for x <- [gate, up], do: Nx.as_type(x, wide(x.type))
    wide |> Nx.multiply(Nx.sigmoid(wide)) |> Nx.multiply(wide_up) |> Nx.as_type(gate.type)
  end
end
