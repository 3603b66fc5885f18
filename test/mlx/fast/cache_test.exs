defmodule Mlx.Fast.CacheTest do
  use ExUnit.Case, async: true
  import Mlx.FastCase
  import Mlx.Oracle
  import Mlx.Samples
  alias Mlx.Fast

  for type <- [:f32, :bf16, :s32, :u8] do
    test "of #{type}" do
      cache = sample(unquote(type), {2, 3, 7, 2})
      update = sample(:s8, {2, 3, 2, 2})

      for position <- [
            0,
            5,
            9,
            -1,
            tensor(4, :s64),
            tensor([5, 1], :s32),
            tensor([-9, 99], :s8)
          ] do
        assert_same(&Fast.update_cache/3, [cache, update, position])
      end
    end
  end

  test "puts each of a batch at its place" do
    cache = Nx.broadcast(tensor(0, :s32), {2, 4})
    update = tensor([[1, 2], [3, 4]], :s32)
    put = &Fast.update_cache(cache, update, tensor(&1, :s32), axis: 1)
    assert put.([0, 1]) == tensor([[1, 2, 0, 0], [0, 3, 4, 0]], :s32)
    assert put.([3, -1]) == tensor([[0, 0, 1, 2], [3, 4, 0, 0]], :s32)
  end

  test "along other axes, of named and vectorized tensors" do
    cache = sample(:f32, {2, 5, 3}, names: [:b, :t, nil])
    update = sample(:f32, {2, 2, 3})

    for position <- [1, tensor(1, :s32), tensor([1, 3], :s32)] do
      assert_same(&Fast.update_cache(&1, &2, &3, axis: :t), [cache, update, position])
    end

    each = Nx.vectorize(tensor([1, 3], :s32), :v)

    [cache, update] =
      for x <- [cache, update], do: x |> Nx.rename([:v, :t, nil]) |> Nx.vectorize(:v)

    for position <- [1, tensor(1, :s32), each] do
      assert_same(&Fast.update_cache/3, [cache, update, position])
    end
  end

  # Addresses tell, and only the memory of the host has them on every machine.
  test "writes to a cache that is donated" do
    Nx.with_default_backend({Mlx.Backend, device: :cpu}, fn ->
      update = Nx.broadcast(5.0, {2, 3, 1, 8})
      put = Nx.Defn.jit(&Fast.update_cache/3, compiler: Mlx.Compiler, device: :cpu)

      for position <- [Nx.tensor(3), Nx.tensor([3, 5])], given <- [& &1, &Nx.donatable/1] do
        cache = Mlx.eval(Nx.add(Nx.iota({2, 3, 9, 8}, type: :f32), 1))
        address = address(cache)

        assert address(put.(given.(cache), update, position)) == address ==
                 given.(cache).donatable?
      end
    end)
  end

  test "refuses what has no meaning" do
    cache = sample(:f32, {2, 3, 7, 2})

    for {shape, position, opts, message} <- [
          {{2, 3, 8, 2}, 0, [], "an update that fits into {2, 3, 7, 2} along axis 2"},
          {{2, 2, 1, 2}, 0, [], "an update that fits"},
          {{3, 1, 2}, 0, [], "an update that fits"},
          {{2, 3, 1, 2}, 0.5, [], "an integer of 32 bits"},
          {{2, 3, 1, 2}, tensor([1, 2, 3], :s32), [], "one for each of a batch"},
          {{1, 3, 7, 2}, tensor([0], :s32), [axis: 0], "one for each of a batch"}
        ] do
      refused(message, fn -> Fast.update_cache(cache, sample(:f32, shape), position, opts) end)
    end
  end

  defp address(tensor), do: Nx.to_pointer(Mlx.eval(tensor), mode: :local).address
end
