defmodule Mlx.Generators do
  @moduledoc """
  Tensors of `Nx.BinaryBackend` and options of Nx's functions, at random.
  """

  import StreamData

  @doc """
  A tensor of that type and shape. Floats are small multiples of 1/4, which every type
  holds exactly, and with `specials: true` now and then not finite. Integers reach up
  to the bounds of the type, unless `small: true` is given.
  """
  def tensor(type, shape, opts \\ []) do
    size = Tuple.product(shape)

    map(list_of(number(type, opts), length: size), fn
      [] -> empty(type, shape)
      numbers -> numbers |> Mlx.Samples.tensor(type) |> Nx.reshape(shape)
    end)
  end

  # Only Nx.pad/3 makes tensors without elements.
  defp empty(type, shape) do
    one = Nx.broadcast(Mlx.Samples.tensor(0, type), List.to_tuple(ones(shape)))
    Nx.pad(one, one |> Nx.flatten() |> Nx.squeeze(), for(dim <- dims(shape), do: {0, dim - 1, 0}))
  end

  defp dims(shape), do: Tuple.to_list(shape)
  defp ones(shape), do: List.duplicate(1, tuple_size(shape))

  defp number(:c64, opts), do: map({number(:f32, opts), number(:f32, opts)}, &complex/1)

  defp number(type, opts) do
    cond do
      type in Mlx.Samples.floats() and opts[:specials] ->
        frequency([{8, quarter()}, {1, member_of([:nan, :infinity, :neg_infinity])}])

      type in Mlx.Samples.floats() ->
        quarter()

      opts[:small] ->
        integer(max(elem(Mlx.Samples.bounds(type), 0), -9)..9)

      true ->
        {low, high} = Mlx.Samples.bounds(type)
        frequency([{3, number(type, small: true)}, {1, integer(low..high)}])
    end
  end

  defp quarter, do: map(integer(-16..16), &(&1 / 4))

  defp complex({re, im}), do: Complex.new(re, im)

  @doc """
  A shape of that rank.
  """
  def shape(rank, dims \\ 1..5) do
    map(list_of(integer(dims), length: rank), &List.to_tuple/1)
  end

  @doc """
  One value for each axis.
  """
  def per_axis(value, rank), do: list_of(value, length: rank)
end
