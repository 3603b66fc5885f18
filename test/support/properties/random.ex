defmodule Mlx.Properties.Random do
  @moduledoc false

  use ExUnitProperties
  import StreamData
  import Mlx.Generators
  import Mlx.Samples, only: [bounds: 1, integers: 0]
  alias Nx.Random

  # Nx.BinaryBackend cuts bf16 off where others round.
  @close [ulps: 16, scale: 1.0]
  @floats [:f16, :bf16, :f32, :f64]

  def all do
    [
      {"Nx.Random.key", key_of()},
      {"Nx.Random.split", split()},
      {"Nx.Random.fold_in", fold_in()},
      {"Nx.Random.randint", randint()},
      {"Nx.Random.uniform", float(&Random.uniform/2, @floats ++ [:c64])},
      {"Nx.Random.normal", float(&Random.normal/2, @floats ++ [:c64])},
      {"Nx.Random.gumbel", float(&Random.gumbel/2, @floats)},
      {"Nx.Random.shuffle and choice", shuffled()}
    ]
  end

  defp key_of do
    gen all seed <- integer(0..(2 ** 63 - 1)) do
      {fn -> Random.key(seed) end, [], []}
    end
  end

  defp split do
    gen all key <- key(), parts <- integer(1..9) do
      {&Random.split(&1, parts: parts), [key], []}
    end
  end

  defp fold_in do
    gen all key <- key(), data <- integer(0..(2 ** 40)) do
      {&Random.fold_in/2, [key, Mlx.Samples.tensor(data, :s64)], []}
    end
  end

  defp randint do
    gen all key <- key(),
            type <- member_of(integers()),
            shape <- ranked(),
            {least, most} = bounds(type),
            low <- integer(max(least, -1000)..10),
            # Of wider ranges Nx works out the remainder of u64 and s64 as one of s64.
            width <- integer(1..(min(most, 2 ** 40) - 10)) do
      {&Random.randint(&1, low, low + width, type: type, shape: shape), [key], []}
    end
  end

  defp float(fun, types) do
    gen all key <- key(), type <- member_of(types), shape <- ranked() do
      {&fun.(&1, type: Nx.Type.normalize!(type), shape: shape), [key], @close}
    end
  end

  defp shuffled do
    gen all key <- key(),
            shape <- shape(2, 1..6),
            x <- tensor(:s32, shape),
            axis <- integer(0..1),
            samples <- integer(1..elem(shape, axis)),
            replace <- boolean(),
            fun <-
              member_of([
                &Random.shuffle(&1, &2, axis: axis),
                &Random.shuffle(&1, &2, axis: axis, independent: true),
                &Random.choice(&1, &2, axis: axis, samples: samples, replace: replace)
              ]) do
      {fun, [key, x], []}
    end
  end

  defp key do
    map(integer(0..(2 ** 40)), fn seed ->
      Nx.with_default_backend(Nx.BinaryBackend, fn -> Random.key(seed) end)
    end)
  end

  defp ranked, do: bind(integer(0..3), &shape/1)
end
