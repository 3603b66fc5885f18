defmodule Mlx.Fast.Mask do
  @moduledoc false

  # Which keys a query sees. What options say of it becomes one mask, of booleans or of numbers
  # to add, unless a kernel knows it by itself.

  import Mlx.Fast.Operand

  @name :scaled_dot_product_attention

  @doc """
  The mask of the options with four axes, and the options with tensors for lengths and positions.
  A position that is a number is called `:number`.
  """
  def operands(opts, {batch, _, queries, keys} = shape) do
    if opts[:position] != nil and not opts[:causal],
      do: raise(ArgumentError, "Mlx.Fast.#{@name} takes :position for causal: true only")

    if opts[:causal] and opts[:position] == nil and queries > keys do
      raise ArgumentError,
            "Mlx.Fast.#{@name} takes a :position if #{queries} causal queries are more than the #{keys} keys"
    end

    {number, position} = positions(opts[:position], keys - queries, batch)
    lengths = lengths(opts[:lengths], batch)
    mask = mask(tensor(opts[:mask]), shape)
    {mask, [number: number, position: position, lengths: lengths]}
  end

  defp positions(nil, latest, _batch), do: {latest, nil}

  defp positions(position, latest, batch) do
    case integers!(@name, ":position", position) do
      number when is_integer(number) and number in 0..latest//1 ->
        {number, nil}

      number when is_integer(number) ->
        wrong_option(@name, "a number from 0 to #{latest}", :position, number)

      tensor ->
        {nil, per_batch(tensor, ":position", batch)}
    end
  end

  defp lengths(nil, _batch), do: nil

  defp lengths(lengths, batch),
    do: integers!(@name, ":lengths", lengths) |> Nx.to_tensor() |> per_batch(":lengths", batch)

  defp per_batch(%{shape: shape} = tensor, _name, batch) when shape in [{}, {batch}], do: tensor

  defp per_batch(tensor, name, batch),
    do: refuse(@name, "#{name} of shape {} or {#{batch}}", tensor)

  defp mask(nil, _shape), do: nil

  defp mask(%{type: type, shape: shape} = mask, full) when tuple_size(shape) <= 4 do
    sizes = List.duplicate(1, 4 - tuple_size(shape)) ++ Tuple.to_list(shape)
    fits? = Enum.zip_with(sizes, Tuple.to_list(full), &(&1 in [1, &2])) |> Enum.all?()

    cond do
      not fits? -> refuse(@name, "a mask that broadcasts to #{inspect(full)}", mask)
      type == {:u, 8} or Nx.Type.float?(type) -> Nx.reshape(mask, List.to_tuple(sizes))
      true -> refuse(@name, "a mask of u8 or of floats", mask)
    end
  end

  defp mask(mask, full), do: refuse(@name, "a mask that broadcasts to #{inspect(full)}", mask)

  @doc """
  The keys and values that may be seen, whether each query but the last sees one key less than the
  next, or the position of the first query if they see the keys up to their own, and the mask of all
  else.
  """
  def combine(%{causal: true, position: number} = sees, k, v, queries, type)
      when is_integer(number) do
    # Nobody sees later keys.
    [k, v] = for x <- [k, v], do: Nx.slice_along_axis(x, 0, number + queries, axis: 2)
    mask = sees.mask && shortened(sees.mask, number + queries)
    sees = %{sees | mask: mask}

    if mask == nil and sees.lengths == nil,
      do: {k, v, queries > 1, nil},
      else: {k, v, false, together(sees, queries, elem(k.shape, 2), type)}
  end

  def combine(
        %{causal: true, position: %{shape: {}}, mask: nil, lengths: nil} = sees,
        k,
        v,
        _,
        _
      ),
      do: {k, v, sees.position, nil}

  def combine(sees, k, v, queries, type),
    do: {k, v, false, together(sees, queries, elem(k.shape, 2), type)}

  defp shortened(%{shape: {_, _, _, 1}} = mask, _keys), do: mask
  defp shortened(mask, keys), do: Nx.slice_along_axis(mask, 0, keys, axis: 3)

  defp together(sees, queries, keys, type) do
    [
      sees.causal && seen(sees.position, queries, keys),
      sees.lengths && Nx.less(along_keys(keys), sees.lengths |> at_batch() |> Nx.max(1))
    ]
    |> Enum.filter(& &1)
    |> join(sees.mask, type)
  end

  defp join([], nil, _type), do: nil
  defp join(booleans, nil, _type), do: Enum.reduce(booleans, &Nx.logical_and/2)

  defp join(booleans, %{type: {:u, 8}} = mask, _type),
    do: Enum.reduce(booleans, mask, &Nx.logical_and/2)

  defp join(booleans, mask, type) do
    mask = added(mask, type)

    case join(booleans, nil, type) do
      nil -> mask
      seen -> seen |> Nx.broadcast(common(seen.shape, mask.shape)) |> Nx.select(mask, least(type))
    end
  end

  defp common(a, b),
    do: Enum.zip_with(Tuple.to_list(a), Tuple.to_list(b), &max/2) |> List.to_tuple()

  # Numbers that hide a key in a wider type are infinite in a narrower one, and a query that
  # sees no key would give NaN.
  defp added(%{type: type} = mask, type), do: mask
  defp added(mask, type), do: mask |> Nx.max(least(type)) |> Nx.as_type(type)

  defp least({:f, 16}), do: Nx.tensor(-32_768.0, type: :f16)
  defp least(type), do: Nx.divide(Nx.Constants.min_finite(type), 2) |> Nx.as_type(type)

  @doc """
  What each query sees if the last one sees all keys.
  """
  def causal(queries, keys), do: seen(keys - queries, queries, keys)

  @doc """
  What each query sees from the first one on, whose position this is. The first key is always seen.
  """
  def seen(position, queries, keys) do
    places = Nx.iota({1, 1, queries, 1}, type: :s32)
    latest = position |> at_batch() |> Nx.add(places) |> Nx.max(0)
    Nx.less_equal(along_keys(keys), latest)
  end

  defp along_keys(keys), do: Nx.iota({1, 1, 1, keys}, type: :s32)

  defp at_batch(number) when is_integer(number), do: number
  defp at_batch(%{shape: {}} = tensor), do: Nx.as_type(tensor, :s32)

  defp at_batch(%{shape: {batch}} = tensor),
    do: tensor |> Nx.as_type(:s32) |> Nx.reshape({batch, 1, 1, 1})
end
