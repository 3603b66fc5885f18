defmodule Mlx.Properties.Indexing do
  @moduledoc false

  use ExUnitProperties
  import StreamData
  import Mlx.Generators, except: [tensor: 2]
  import Mlx.Samples, only: [integers: 0, tensor: 2]
  alias Mlx.Generators

  @all_types Mlx.Samples.types() ++ Mlx.Samples.narrow_floats()

  def all do
    [
      slice: slice(),
      put_slice: put_slice(),
      gather: gather(),
      indexed_add: indexed_add(),
      indexed_put: indexed_put()
    ] ++
      [
        {Nx.Block.Take, take()},
        {Nx.Block.TakeAlongAxis, take_along_axis()},
        {"parts by Access", access()}
      ]
  end

  defp slice do
    gen all {x, lengths, starts} <- sliced(),
            strides <- per_axis(integer(1..3), Nx.rank(x)) do
      {&Nx.slice(&1, &2, lengths, strides: strides), [x, starts], []}
    end
  end

  defp put_slice do
    gen all {x, lengths, starts} <- sliced(),
            type <- member_of([type(x), :u8]),
            part <- Generators.tensor(type, List.to_tuple(lengths), small: true) do
      {&Nx.put_slice/3, [x, starts, part], []}
    end
  end

  # A tensor, and where a part of it starts: at numbers or tensors, now and then far
  # outside, so that it is moved inside.
  defp sliced do
    gen all type <- member_of(@all_types),
            rank <- integer(1..4),
            shape <- shape(rank),
            x <- Generators.tensor(type, shape, small: true),
            lengths <- fixed_list(for(dim <- Tuple.to_list(shape), do: integer(1..dim))),
            starts <- per_axis(start(), rank) do
      {x, lengths, starts}
    end
  end

  defp start do
    near = integer(-2..6)

    one_of([
      near,
      # In a definition, Nx makes tensors of s32 of some of these numbers.
      member_of([-(2 ** 30), 2 ** 30]),
      map(near, &tensor(&1, :s8)),
      map(near, &tensor(&1, :s32)),
      map(integer(0..6), &tensor(&1, :u8)),
      constant(tensor(-(2 ** 62), :s64)),
      constant(tensor(2 ** 64 - 1, :u64))
    ])
  end

  defp gather do
    gen all {x, axes, indices} <- indexed(bind(integer(0..3), &shape(&1, 1..4))) do
      {&Nx.gather(&1, &2, axes: axes), [x, indices], []}
    end
  end

  defp indexed_add do
    gen all {x, axes, indices} <- indexed(shape(1, 1..6)), updates <- updates(x, axes, indices) do
      # Nx.BinaryBackend adds to a sum that starts with 0, which -0.0 is lost in.
      options = [scale: 8.0, signed_zero: false]
      {&Nx.indexed_add(&1, &2, &3, axes: axes), [x, indices, updates], options}
    end
  end

  defp indexed_put do
    gen all {x, axes, indices} <- indexed(shape(1, 1..6)), updates <- updates(x, axes, indices) do
      {&Nx.indexed_put(&1, &2, &3, axes: axes), [x, indices, updates], []}
    end
  end

  # A tensor, some of its axes in order, and positions along these.
  defp indexed(batch) do
    gen all type <- member_of(@all_types),
            rank <- integer(1..4),
            shape <- shape(rank, 1..4),
            x <- Generators.tensor(type, shape, small: true),
            always <- integer(0..(rank - 1)),
            chosen <- per_axis(boolean(), rank),
            axes = for({flag, axis} <- Enum.with_index(chosen), flag or axis == always, do: axis),
            batch <- batch,
            columns <- fixed_list(for(axis <- axes, do: positions(batch, elem(shape, axis)))) do
      {x, axes, Nx.stack(columns, axis: -1)}
    end
  end

  defp positions(shape, size) do
    gen all type <- member_of(integers()),
            numbers <- list_of(integer(0..(size - 1)), length: Tuple.product(shape)) do
      numbers |> tensor(type) |> Nx.reshape(shape)
    end
  end

  # One for each index; of the first of the other axes it may be a part.
  defp updates(x, axes, indices) do
    window = for {dim, axis} <- Enum.with_index(Tuple.to_list(x.shape)), axis not in axes, do: dim
    {count, _} = indices.shape

    gen all type <- member_of([type(x), :u8]),
            cut <- integer(0..2),
            window = List.update_at(window, 0, &max(&1 - cut, 1)),
            updates <- Generators.tensor(type, List.to_tuple([count | window]), small: true) do
      updates
    end
  end

  defp take do
    gen all {x, axis} <- with_axis(),
            count <- bind(integer(0..3), &shape(&1, 1..4)),
            at <- positions(count, Nx.axis_size(x, axis)) do
      {&Nx.take(&1, &2, axis: axis), [x, at], []}
    end
  end

  defp take_along_axis do
    gen all {x, axis} <- with_axis(),
            count <- integer(1..7),
            at <- positions(put_elem(x.shape, axis, count), Nx.axis_size(x, axis)) do
      {&Nx.take_along_axis(&1, &2, axis: axis), [x, at], []}
    end
  end

  defp with_axis do
    gen all type <- member_of(@all_types),
            rank <- integer(1..4),
            shape <- shape(rank),
            x <- Generators.tensor(type, shape),
            axis <- integer(0..(rank - 1)) do
      {x, axis}
    end
  end

  defp access do
    gen all type <- member_of(@all_types),
            rank <- integer(1..3),
            shape <- shape(rank),
            x <- Generators.tensor(type, shape),
            parts <- fixed_list(for(dim <- Tuple.to_list(shape), do: part(dim))),
            count <- integer(1..rank) do
      {fn x -> x[Enum.take(parts, count)] end, [x], []}
    end
  end

  defp part(dim) do
    one_of([
      integer(-dim..(dim - 1)),
      constant(..),
      map({integer(0..(dim - 1)), integer(0..(dim - 1))}, fn {a, b} -> min(a, b)..max(a, b) end)
    ])
  end

  defp type(x), do: x.type |> Nx.Type.to_string() |> String.to_atom()
end
