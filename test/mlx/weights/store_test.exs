defmodule Mlx.Weights.StoreTest do
  use ExUnit.Case, async: true
  import Mlx.Samples
  import Mlx.WeightFiles
  alias Mlx.Weights
  alias Mlx.Quantization.Tensor, as: Quantized

  @moduletag :tmp_dir

  defp assert_same(got, expected) do
    assert {got.type, got.shape} == {expected.type, expected.shape}
    assert Nx.to_binary(got) == Nx.to_binary(expected)
  end

  test "every type comes back, from every backend", %{tmp_dir: folder} do
    plain = for type <- Mlx.TestDevice.types(types()), into: %{}, do: {"%s #{type}", sample(type)}
    narrow = for type <- narrow_floats(), into: %{}, do: {"#{type}", tensor([1, 0, 1], type)}
    scalar = %{"scalar" => tensor(3, :u8)}
    all = plain |> Map.merge(narrow) |> Map.merge(scalar)
    numpy = Map.drop(Map.merge(plain, scalar), ["%s bf16"])

    for {name, tensors} <- [{"x.safetensors", all}, {"x.npz", numpy}, {"folder", all}],
        backend <- [Nx.BinaryBackend, Mlx.Backend] do
      path = Path.join(folder, name)

      copies =
        for {name, tensor} <- tensors, into: %{}, do: {name, Nx.backend_copy(tensor, backend)}

      assert Weights.save(path, copies) == :ok
      loaded = Weights.load(path)
      assert Map.keys(loaded) == Map.keys(tensors)
      for {name, tensor} <- tensors, do: assert_same(loaded[name], tensor)
    end

    for {name, tensor} <- numpy do
      path = Path.join(folder, "x.npy")
      Weights.save(path, tensor)
      assert %{"x" => loaded} = Weights.load(path)
      assert_same(loaded, tensor)
      assert name
    end
  end

  test "views and vectorized tensors are saved as what they are", %{tmp_dir: folder} do
    path = Path.join(folder, "x.safetensors")
    x = Nx.iota({2, 3}, backend: Mlx.Backend, names: [:a, nil])
    Weights.save(path, %{"t" => Nx.transpose(x), "v" => Nx.vectorize(x, :a)})
    loaded = Weights.load(path)
    assert Nx.to_list(loaded["t"]) == [[0, 3], [1, 4], [2, 5]]
    assert Nx.to_list(loaded["v"]) == [[0, 1, 2], [3, 4, 5]]
  end

  test "the values of large elements are aligned", %{tmp_dir: folder} do
    path = Path.join(folder, "x.safetensors")

    Weights.save(path, %{
      "a" => tensor([1], :u8),
      "b" => tensor([1], :f64),
      "cc" => tensor(1, :f16)
    })

    weights = Weights.open(path)
    assert Weights.names(weights) == ["b", "cc", "a"]

    for {_, entry} <- weights.entries,
        do: assert(rem(entry.offset, div(elem(entry.type, 1), 8)) == 0)
  end

  test "types that a format lacks are refused before anything is written", %{tmp_dir: folder} do
    for {name, type} <- [
          {"x.safetensors", :u4},
          {"x.npz", :bf16},
          {"x.npz", :f8},
          {"folder", :s2}
        ] do
      error =
        assert_raise Mlx.Error, fn ->
          Weights.save(Path.join(folder, name), %{"a" => tensor(1, :u8), "b" => tensor(1, type)})
        end

      assert error.kind == :type
      assert error.message =~ "\"b\""
    end

    assert_raise Mlx.Error, fn -> Weights.save(Path.join(folder, "x.npy"), tensor(1, :bf16)) end
    assert File.ls!(folder) == []
  end

  test "what is no map of names to tensors is refused", %{tmp_dir: folder} do
    path = Path.join(folder, "x.safetensors")
    one = tensor(1, :u8)
    quantized = Weights.load(fixture("quantized"))["a.weight"]

    for tensors <-
          [one, [one], %{a: one}, %{"a" => 1}, %{"a" => %{"b" => one}}] ++
            [%{"__metadata__" => one}, %{<<255>> => one}, %{"a" => quantized}] ++
            [%{"a.weight" => quantized, "a.scales" => one}] do
      assert_raise ArgumentError, fn -> Weights.save(path, tensors) end
    end

    assert_raise ArgumentError, fn -> Weights.save(path <> ".x", %{"a" => one}) end
    assert_raise ArgumentError, fn -> Weights.save(path, %{"a" => one}, metadata: %{a: 1}) end
    assert_raise ArgumentError, fn -> Weights.save(Path.join(folder, "x.gguf"), %{"a" => one}) end

    assert_raise ArgumentError, fn ->
      Weights.save(Path.join(folder, "f"), %{}, max_shard_size: 0)
    end

    transposed = Mlx.Quantization.transpose(quantized)

    assert_raise ArgumentError, ~r/transpose/, fn ->
      Weights.save(path, %{"a.weight" => transposed})
    end

    assert_raise ArgumentError, fn ->
      Weights.save(Path.join(folder, "x.npz"), %{"a.weight" => quantized})
    end

    assert File.ls!(folder) == []
  end

  describe "folders" do
    test "are parted by size, and what was there before goes", %{tmp_dir: folder} do
      tensors = for at <- 1..5, into: %{}, do: {"t#{at}", Nx.iota({at}, type: :u8)}
      write(folder, "notes.txt", "stay")

      for {size, files} <- [{5, 4}, {100, 1}, {1, 5}, {6, 3}, {100, 1}] do
        Weights.save(folder, tensors, max_shard_size: size)
        shards = Path.wildcard(Path.join(folder, "*.safetensors"))
        assert length(shards) == files
        index = Path.join(folder, "model.safetensors.index.json")
        assert File.exists?(index) == files > 1

        if files > 1 do
          assert %{"metadata" => %{"total_size" => 15}, "weight_map" => map} =
                   JSON.decode!(File.read!(index))

          assert Map.keys(map) == Map.keys(tensors)
        end

        loaded = Weights.load(folder)
        for {name, tensor} <- tensors, do: assert_same(loaded[name], tensor)
      end

      assert "notes.txt" in File.ls!(folder)
      refute "config.json" in File.ls!(folder)
    end

    test "keep quantized weights with their settings", %{tmp_dir: folder} do
      weights = Weights.load(fixture("quantized"))
      config = Weights.load_config(fixture("quantized"))
      path = Path.join(folder, "model-1.5b")

      for opts <- [[config: config], [config: %{"model_type" => "none"}, max_shard_size: 700]] do
        Weights.save(path, weights, opts)
        assert Weights.load_config(path)["model_type"] == "none"
        loaded = Weights.load(path)
        assert Map.keys(loaded) == Map.keys(weights)

        for layer <- ["a", "b", "c"] do
          {got, expected} = {loaded[layer <> ".weight"], weights[layer <> ".weight"]}
          assert %Quantized{} = got
          keys = [:bits, :group_size, :mode]
          assert Map.take(got, keys) == Map.take(expected, keys)

          for part <- [:packed, :scales],
              do: assert_same(Map.fetch!(got, part), Map.fetch!(expected, part))
        end
      end

      # Without quantized weights there is no quantization to speak of.
      Weights.save(path, %{"norm.weight" => weights["norm.weight"]}, config: config)
      assert Weights.load_config(path) == %{"model_type" => "none"}
    end

    test "keep what Mlx.Quantization makes", %{tmp_dir: folder} do
      kernel = Nx.sin(Nx.iota({16, 128}, type: :f32, backend: Mlx.Backend))

      for {mode, bits, group_size} = format <- Mlx.Quantization.formats() do
        opts = [mode: mode, bits: bits, group_size: group_size]
        weight = Mlx.Quantization.quantize(kernel, opts)
        path = Path.join(folder, "#{inspect(format)}" |> String.replace(~r/\W/, "_"))
        Weights.save(path, %{"k.weight" => weight})
        assert %{"k.weight" => got} = Weights.load(path, type: :f32)
        assert Map.take(got, Keyword.keys(opts)) == Map.new(opts)
        assert got.type == {:f, 32}
        assert_same(Mlx.Quantization.dequantize(got), Mlx.Quantization.dequantize(weight))
      end
    end

    test "that can't be made are refused, and those that were go again", %{tmp_dir: folder} do
      file = write(folder, "file", "")
      error = assert_raise Mlx.Error, fn -> Weights.save(Path.join(file, "x"), %{}) end
      assert error.kind == :io
      gone = Nx.tensor([1], backend: Mlx.Backend)
      Nx.backend_deallocate(gone)
      assert_raise Mlx.Error, fn -> Weights.save(Path.join(folder, "new"), %{"a" => gone}) end
      assert File.ls!(folder) == ["file"]
    end
  end

  test "a failure leaves what was there before", %{tmp_dir: folder} do
    gone = Nx.tensor([1], backend: Mlx.Backend)
    Nx.backend_deallocate(gone)
    good = Nx.tensor([1, 2], backend: Mlx.Backend)

    for name <- ["x.safetensors", "x.npz"] do
      path = write(folder, name, "before")
      assert_raise Mlx.Error, fn -> Weights.save(path, %{"a" => good, "b" => gone}) end
      assert File.read!(path) == "before"
      File.rm!(path)
    end

    Weights.save(folder, %{"a" => good})
    before = File.read!(Path.join(folder, "model.safetensors"))
    broken = %{"a" => good, "b" => good, "c" => gone}
    assert_raise Mlx.Error, fn -> Weights.save(folder, broken, max_shard_size: 8, config: %{}) end
    assert File.ls!(folder) == ["model.safetensors"]
    assert File.read!(Path.join(folder, "model.safetensors")) == before
  end
end
