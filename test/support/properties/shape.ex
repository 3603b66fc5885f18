defmodule Mlx.Properties.Shape do
  @moduledoc false

  use ExUnitProperties
  import StreamData
  import Mlx.Generators
  import Mlx.Samples, only: [floats: 0, integers: 0, types: 0]

  @all_types Mlx.Samples.types() ++ Mlx.Samples.narrow_floats()

  @same_width [
    [:u8, :s8, :f8, :f8_e4m3fn],
    [:u16, :s16, :f16, :bf16],
    [:u32, :s32, :f32],
    [:u64, :s64, :f64]
  ]

  def all do
    [
      reshape: reshape(),
      squeeze: squeeze(),
      broadcast: broadcast(),
      transpose: transpose(),
      reverse: reverse(),
      as_type: as_type(),
      bitcast: bitcast(),
      concatenate: concatenate(),
      stack: stack(),
      pad: pad()
    ] ++
      [
        {"bits that are not those of a number", bits()},
        {"views", views()},
        {"to_batched", to_batched()},
        {"new_axis, tile and flatten", others()}
      ]
  end

  defp reshape do
    gen all type <- member_of(@all_types),
            dims <- list_of(integer(1..4), max_length: 4),
            order <- shuffle(dims),
            auto <- boolean(),
            x <- tensor(type, List.to_tuple(dims)) do
      shape = if auto and order != [], do: List.replace_at(order, 0, :auto), else: order
      {&Nx.reshape(&1, List.to_tuple(shape)), [x], []}
    end
  end

  defp squeeze do
    gen all type <- member_of(@all_types),
            dims <- list_of(frequency([{1, constant(1)}, {1, integer(2..4)}]), max_length: 5),
            x <- tensor(type, List.to_tuple(dims)),
            ones = for({1, axis} <- Enum.with_index(dims), do: axis),
            axes <- member_of([ones, Enum.take(ones, 1)]),
            all <- boolean() do
      {&Nx.squeeze(&1, if(all, do: [], else: [axes: axes])), [x], []}
    end
  end

  defp broadcast do
    gen all type <- member_of(@all_types),
            rank <- integer(0..4),
            shape <- shape(rank, 1..4),
            chosen <- per_axis(boolean(), rank),
            ones <- per_axis(frequency([{1, true}, {3, false}]), rank),
            axes = for({true, axis} <- Enum.with_index(chosen), do: axis),
            dims = for(axis <- axes, do: if(Enum.at(ones, axis), do: 1, else: elem(shape, axis))),
            x <- tensor(type, List.to_tuple(dims)) do
      {&Nx.broadcast(&1, shape, axes: axes), [x], []}
    end
  end

  defp transpose do
    gen all {x, _axes} <- with_axes(), order <- shuffle(Nx.axes(x)) do
      {&Nx.transpose(&1, axes: order), [x], []}
    end
  end

  defp reverse do
    gen all {x, axes} <- with_axes() do
      {&Nx.reverse(&1, axes: axes), [x], []}
    end
  end

  defp as_type do
    gen all from <- member_of(@all_types),
            to <- member_of(@all_types),
            shape <- any_shape(),
            # Past the bounds of a float, Nx.BinaryBackend has no one answer.
            options = [small: to not in types(), specials: to in floats() or to in integers()],
            x <- tensor(from, shape, options) do
      {&Nx.as_type(&1, to), [x], []}
    end
  end

  # Floats come from numbers, as NaN has many patterns.
  defp bitcast do
    gen all group <- member_of(@same_width),
            from <- member_of(group),
            to <- member_of(for type <- group, type in integers(), do: type),
            shape <- any_shape(),
            x <- tensor(from, shape) do
      {&Nx.bitcast(&1, to), [x], []}
    end
  end

  defp bits do
    pairs =
      for group <- tl(@same_width),
          float <- Mlx.TestDevice.types(group -- integers()),
          integer <- group,
          integer in integers(),
          do: {integer, float}

    gen all {integer, float} <- member_of(pairs),
            x <- tensor(integer, {7}) do
      {&Nx.bitcast(Nx.bitcast(&1, float), integer), [x], oracle: & &1}
    end
  end

  defp concatenate do
    gen all {shape, axis, sizes, types} <- parts(),
            tensors <-
              fixed_list(
                for {size, type} <- Enum.zip(sizes, types) do
                  tensor(type, put_elem(shape, axis, size), small: true)
                end
              ) do
      {&Nx.concatenate(&1, axis: axis), [tensors], []}
    end
  end

  defp stack do
    gen all {shape, axis, _sizes, types} <- parts(),
            tensors <- fixed_list(for(type <- types, do: tensor(type, shape, small: true))),
            axis <- member_of([axis, -1, axis + 1]) do
      {&Nx.stack(&1, axis: axis), [tensors], []}
    end
  end

  defp parts do
    gen all rank <- integer(1..4),
            shape <- shape(rank, 1..4),
            axis <- integer(0..(rank - 1)),
            sizes <- list_of(integer(1..3), min_length: 1, max_length: 4),
            # With complex numbers, f64 makes c128.
            types <- list_of(member_of(@all_types -- [:f64]), length: length(sizes)) do
      {shape, axis, sizes, types}
    end
  end

  defp pad do
    gen all type <- member_of(@all_types),
            rank <- integer(0..4),
            # Nx.BinaryBackend can't cut off all there is.
            shape <- shape(rank, 3..5),
            width = integer(-1..3),
            config <- per_axis({width, width, integer(0..2)}, rank),
            x <- tensor(type, shape),
            value <- tensor(type, {}) do
      {&Nx.pad(&1, &2, config), [x, value], []}
    end
  end

  # Operations on what does not lie in row order.
  defp views do
    gen all {x, axes} <- with_axes(),
            order <- shuffle(Nx.axes(x)),
            operation <-
              member_of([
                &Nx.flatten/1,
                &Nx.broadcast(&1, Tuple.insert_at(&1.shape, 0, 2)),
                &Nx.concatenate([Nx.flatten(&1), Nx.flatten(&1)]),
                &Nx.as_type(&1, :c64),
                &Nx.slice(Nx.flatten(&1), [0], [1]),
                &Nx.equal(&1, &1)
              ]) do
      {&(&1 |> Nx.reverse(axes: axes) |> Nx.transpose(axes: order) |> operation.()), [x], []}
    end
  end

  defp to_batched do
    gen all type <- member_of(@all_types),
            rank <- integer(1..3),
            shape <- shape(rank, 1..7),
            size <- integer(1..elem(shape, 0)),
            leftover <- member_of([:repeat, :discard]),
            x <- tensor(type, shape) do
      fun = &(&1 |> Nx.to_batched(size, leftover: leftover) |> Enum.to_list() |> List.to_tuple())
      # There is no such thing in a definition.
      {fun, [x], ways: [:eager]}
    end
  end

  defp others do
    gen all {x, _axes} <- with_axes(),
            repeats <- list_of(integer(1..3), min_length: 1, max_length: 4),
            axis <- integer(0..Nx.rank(x)),
            fun <- member_of([&Nx.new_axis(&1, axis), &Nx.tile(&1, repeats), &Nx.flatten/1]) do
      {fun, [x], []}
    end
  end

  defp with_axes do
    gen all type <- member_of(@all_types),
            rank <- integer(0..4),
            shape <- shape(rank, 1..4),
            x <- tensor(type, shape),
            chosen <- per_axis(boolean(), rank) do
      {x, for({true, axis} <- Enum.with_index(chosen), do: axis)}
    end
  end
end
