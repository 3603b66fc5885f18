defmodule Mlx.Generators do
  @moduledoc """
  Tensors of `Nx.BinaryBackend` and options of Nx's functions, at random.
  """

  import StreamData

  @infinities [:infinity, :neg_infinity]

  @doc """
  A tensor of that type and shape. Floats are small multiples of 1/4, which every type
  holds exactly, and with `specials: true` now and then not finite, or one of such a list. Integers reach up
  to the bounds of the type, unless `small: true` is given. With `between: {low, high}`
  all finite numbers, and the parts of complex ones, are in that range; with `nonzero: true`
  none is zero.
  """
  def tensor(type, shape, opts \\ []) do
    size = Tuple.product(shape)

    map(list_of(number(type, opts), length: size), fn
      [] -> empty(type, shape)
      numbers -> numbers |> Mlx.Samples.tensor(type) |> Nx.reshape(shape)
    end)
  end

  @doc """
  A tensor without elements. Nx computes with these, but has no function that makes them.
  """
  def empty(type, shape), do: Nx.BinaryBackend.from_binary(Nx.template(shape, type), "", [])

  # Parts that are not finite are answered as Elixir's functions of complex numbers do.
  defp number(:c64, opts) do
    part = number(:f32, Keyword.delete(opts, :specials))
    map({part, part}, &complex/1)
  end

  defp number(type, opts) do
    cond do
      opts[:nonzero] ->
        type |> number(Keyword.delete(opts, :nonzero)) |> map(&if(&1 == 0, do: 1, else: &1))

      float?(type) and opts[:specials] ->
        specials = if opts[:specials] == true, do: [:nan | @infinities], else: opts[:specials]
        finite = number(type, Keyword.delete(opts, :specials))
        frequency([{8, finite}, {1, member_of(specials)}])

      opts[:between] ->
        between(type, opts[:between])

      float?(type) ->
        quarter()

      opts[:small] ->
        integer(max(elem(Mlx.Samples.bounds(type), 0), -9)..9)

      true ->
        {low, high} = Mlx.Samples.bounds(type)
        frequency([{3, number(type, small: true)}, {1, integer(low..high)}])
    end
  end

  defp between(type, {low, high}) do
    if float?(type) do
      map(integer(0..256), &(low + &1 * (high - low) / 256))
    else
      {least, most} = Mlx.Samples.bounds(type)
      integer(max(ceil(low), least)..min(floor(high), most)//1)
    end
  end

  defp float?(type), do: type in Mlx.Samples.floats() or type in Mlx.Samples.narrow_floats()

  defp quarter, do: map(integer(-16..16), &(&1 / 4))

  defp complex({re, im}), do: Complex.new(re, im)

  @doc """
  A shape of that rank.
  """
  def shape(rank, dims \\ 1..5) do
    map(list_of(integer(dims), length: rank), &List.to_tuple/1)
  end

  @doc """
  A shape of any rank up to 4, of a scalar and now and then of no elements.
  """
  def any_shape do
    bind(integer(0..4), fn rank ->
      dim = frequency([{12, integer(1..4)}, {1, constant(0)}])
      map(list_of(dim, length: rank), &List.to_tuple/1)
    end)
  end

  @doc """
  Shapes that broadcast together.
  """
  def broadcastable(count) do
    bind(any_shape(), fn shape ->
      # How Nx broadcasts what has no elements depends on the backend.
      if Tuple.product(shape) == 0,
        do: constant(List.duplicate(shape, count)),
        else: list_of(part_of(shape), length: count)
    end)
  end

  defp part_of(shape) do
    rank = tuple_size(shape)

    map({integer(0..rank), per_axis(frequency([{3, true}, {1, false}]), rank)}, fn {drop, keep} ->
      Enum.zip_with(Tuple.to_list(shape), keep, &if(&2, do: &1, else: 1))
      |> Enum.drop(if drop == rank, do: 0, else: drop)
      |> List.to_tuple()
    end)
  end

  @doc """
  The same tensors, now and then with their first axes vectorized.
  """
  def some_vectorized(tensors) do
    bind(tensors, fn tensors ->
      frequency([{5, constant(tensors)}, {1, constant(Enum.map(tensors, &vectorized/1))}])
    end)
  end

  defp vectorized(%{shape: shape} = tensor) when tuple_size(shape) > 0 and elem(shape, 0) > 0,
    do: Nx.vectorize(tensor, :"v#{elem(shape, 0)}")

  defp vectorized(tensor), do: tensor

  @doc """
  One value for each axis.
  """
  def per_axis(value, rank), do: list_of(value, length: rank)
end
