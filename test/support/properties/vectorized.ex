defmodule Mlx.Properties.Vectorized do
  @moduledoc false

  use ExUnitProperties
  import StreamData
  import Mlx.Generators

  def all do
    [
      {"functions of a vectorized tensor", of_one()},
      {"functions of differently vectorized tensors", of_two()},
      {"axes that are vectorized and devectorized", axes()}
    ]
  end

  defp of_one do
    gen all x <- vectorized([:u8, :s32, :f16, :f32], [:a, :b]), fun <- functions() do
      {fun, [x], scale: 64.0, signed_zero: false}
    end
  end

  # Of matrices of two rows at least.
  defp functions do
    member_of([
      &Nx.sort(&1, axis: 0, direction: :desc),
      &Nx.argsort/1,
      &Nx.top_k(&1, k: 2),
      &Nx.argmin(&1, axis: 1),
      &Nx.cumulative_sum(&1, axis: 1, reverse: true),
      &Nx.window_max(&1, {2, 1}, padding: :same),
      &Nx.transpose/1,
      &Nx.reverse(&1, axes: [0]),
      &Nx.reshape(&1, {:auto}),
      &Nx.pad(&1, 0, [{1, -1, 0}, {0, 1, 1}]),
      &Nx.slice(&1, [1, 0], [1, 2]),
      &Nx.put_slice(&1, [1, 0], Nx.tensor([[1, 2]], type: &1.type)),
      &Nx.take(&1, Nx.tensor([1, 0, 1]), axis: 1),
      &Nx.take_along_axis(&1, Nx.argsort(&1, axis: 0), axis: 0),
      &Nx.gather(&1, Nx.tensor([[1, 1], [0, 1]])),
      &Nx.indexed_add(&1, Nx.tensor([[1, 1], [1, 1]]), Nx.tensor([1, 2], type: &1.type)),
      # Of parts that are more than an element, Nx.BinaryBackend puts the first elements.
      &Nx.indexed_put(&1, Nx.tensor([[0, 1], [1, 0]]), Nx.tensor([1, 2], type: &1.type)),
      &Nx.concatenate([&1, &1], axis: 1),
      &Nx.stack([&1, &1], axis: 1),
      &Nx.new_axis(&1, 1),
      &Nx.broadcast(&1, Tuple.insert_at(&1.shape, 0, 2)),
      &Nx.fft/1,
      &Nx.dot(&1, [0], &1, [0]),
      &Nx.select(Nx.greater(&1, 1), &1, 0),
      &Nx.clip(&1, 0, 1)
    ])
  end

  defp of_two do
    gen all x <- vectorized([:s32, :f32], [:a, :b]),
            y <- vectorized([:u8, :f32], [:b, :c]),
            fun <-
              member_of([
                &Nx.add(&1, Nx.sum(&2)),
                &Nx.multiply(Nx.reduce_max(&1), &2),
                &Nx.less(Nx.sum(&1, axes: [0, 1], keep_axes: true), &2),
                &Nx.stack([Nx.sum(&1), Nx.sum(&2)]),
                &Nx.outer(Nx.flatten(&1), Nx.flatten(&2)),
                &Nx.select(Nx.any(&1), &2, Nx.product(&1))
              ]) do
      {fun, [x, y], scale: 64.0, signed_zero: false}
    end
  end

  defp axes do
    gen all x <- vectorized([:s32, :f32], [:a, :b]),
            fun <-
              member_of([
                &Nx.devectorize/1,
                &Nx.devectorize(&1, keep_names: false),
                &Nx.vectorize(&1, :rows),
                &Nx.revectorize(&1, [all: :auto], target_shape: &1.shape),
                &Nx.sum(Nx.vectorize(&1, :rows))
              ]) do
      {fun, [x], scale: 64.0, signed_zero: false}
    end
  end

  # Matrices, along one or two axes of that name and of the same size everywhere.
  defp vectorized(types, names) do
    gen all type <- member_of(types),
            count <- integer(1..2),
            rows <- integer(2..4),
            columns <- integer(2..4),
            names = Enum.take(names, count),
            sizes = Enum.map(names, &%{a: 2, b: 3, c: 1}[&1]),
            x <- tensor(type, List.to_tuple(sizes ++ [rows, columns]), small: true) do
      Nx.vectorize(x, names)
    end
  end
end
