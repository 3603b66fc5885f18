defmodule Mlx.Properties.Window do
  @moduledoc false

  use ExUnitProperties
  import StreamData
  import Mlx.Generators
  import Mlx.Samples, only: [narrow_floats: 0, reals: 0]
  alias Mlx.Properties.Reduction

  @all_types Mlx.Samples.types() ++ Mlx.Samples.narrow_floats()

  def all do
    [window_sum: sum(), window_product: product()] ++
      for(op <- [:window_max, :window_min], do: {op, extreme(op)}) ++
      for(op <- [:window_scatter_max, :window_scatter_min], do: {op, scatter(op)}) ++
      [window_reduce: reduce()]
  end

  defp sum do
    gen all type <- member_of(@all_types),
            {x, sizes, options} <- windows(type, specials: true) do
      {&Nx.window_sum(&1, sizes, options), [x], close(type, 4, 64.0)}
    end
  end

  # Nx.BinaryBackend multiplies in double precision. In any other, the order decides
  # whether a part of a long product is infinite before it meets a zero, so there are
  # only factors none of whose products is too large or too small.
  defp product do
    gen all type <- member_of(@all_types),
            numbers = if(type in Mlx.Samples.integers(), do: [], else: [between: {0.75, 1.25}]),
            {x, sizes, options} <- windows(type, numbers) do
      {&Nx.window_product(&1, sizes, options), [x], close(type, 256, 0.0)}
    end
  end

  defp close(type, ulps, scale) do
    ulps = if type in narrow_floats(), do: 1, else: ulps
    [ulps: ulps, scale: scale, signed_zero: false]
  end

  defp extreme(op) do
    gen all type <- member_of(reals() ++ narrow_floats()),
            {x, sizes, options} <- windows(type, specials: true) do
      {&apply(Nx, op, [&1, sizes, options]), [x], signed_zero: false}
    end
  end

  defp scatter(op) do
    gen all type <- member_of(reals()),
            # Nx.BinaryBackend compares and adds numbers as s32 or f32.
            {x, sizes, options} <- windows(type, dilations: 1..1, small: true),
            options = Keyword.delete(options, :window_dilations),
            shape = Nx.shape(Nx.window_sum(x, sizes, options)),
            source_type <- member_of([:u8, :s32, :s64, :f16, :f32, :f64]),
            source <- tensor(source_type, shape, small: true),
            # Nx.BinaryBackend doesn't cast what it pads.
            initial <- integer(0..2) do
      fun = &apply(Nx, op, [&1, &2, initial, sizes, options])
      {fun, [x, source], scale: 16.0, signed_zero: false}
    end
  end

  defp reduce do
    gen all type <- member_of([:s32, :f32]),
            {x, sizes, options} <- windows(type, small: true),
            fun <- Reduction.functions(type),
            initial <- integer(-1..1) do
      # Nx.BinaryBackend can't change the type on the way.
      args = [x, Mlx.Samples.tensor(initial, type)]
      fun = &Nx.window_reduce(&1, &2, sizes, options, fun)
      {fun, args, ulps: 16, scale: 256.0, signed_zero: false}
    end
  end

  # A tensor with windows that fit into it.
  defp windows(type, options) do
    gen all rank <- integer(1..4),
            sizes <- per_axis(integer(1..4), rank),
            strides <- per_axis(integer(1..3), rank),
            dilations <- per_axis(integer(options[:dilations] || 1..3), rank),
            padding <- per_axis({integer(-1..2), integer(-1..2)}, rank),
            room <- per_axis(integer(0..3), rank),
            reach = Enum.zip_with(sizes, dilations, fn size, step -> (size - 1) * step + 1 end),
            dims =
              Enum.zip_with([reach, padding, room], fn [reach, {low, high}, room] ->
                # Nx.BinaryBackend can't cut off all there is.
                max(reach - low - high, 1 + max(-low, 0) + max(-high, 0)) + room
              end),
            x <- tensor(type, List.to_tuple(dims), options) do
      options = [strides: strides, padding: padding, window_dilations: dilations]
      {x, List.to_tuple(sizes), options}
    end
  end
end
