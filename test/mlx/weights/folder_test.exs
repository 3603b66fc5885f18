defmodule Mlx.Weights.FolderTest do
  use ExUnit.Case, async: true
  import Mlx.WeightFiles
  alias Mlx.Weights
  alias Mlx.Quantization.Tensor, as: Quantized

  @moduletag :tmp_dir

  describe "quantized layouts" do
    test "are put together as config.json says, layer by layer" do
      weights = Weights.open(fixture("quantized"))
      assert weights.format == :folder

      assert weights |> Weights.names() |> Enum.sort() ==
               ["a.weight", "b.weight", "c.weight", "norm.weight"]

      assert %{shape: {8, 128}, type: {:f, 32}, stored: "U32", byte_size: 640} =
               info = Weights.info(weights, "a.weight")

      assert info.quantization == %{bits: 4, group_size: 64, mode: :affine}
      assert Weights.info(weights, "b.weight").quantization.bits == 8

      assert %{type: nil, quantization: %{mode: :mxfp4, group_size: 32}, shape: {8, 128}} =
               Weights.info(weights, "c.weight")
    end

    test "are the values that MLX dequantizes to" do
      values = Weights.load(fixture("quantized_values.npz"))
      weights = Weights.load(fixture("quantized"))

      for layer <- ["a", "b"] do
        quantized = weights[layer <> ".weight"]
        assert %Quantized{mode: :affine} = quantized
        difference = Nx.subtract(dequantize(quantized), Nx.flatten(values[layer]))
        assert difference |> Nx.abs() |> Nx.reduce_max() |> Nx.to_number() <= 1.0e-6
      end

      assert %Quantized{mode: :mxfp4, bits: 4, group_size: 32, biases: nil} = weights["c.weight"]
      assert weights["c.weight"].scales.type == {:u, 8}
      assert weights["norm.weight"].type == {:bf, 16}
    end

    test "stand where weights stand" do
      weights = Weights.load(fixture("quantized"))
      values = Weights.load(fixture("quantized_values.npz"))
      x = Nx.iota({2, 128}, type: :f32, backend: Mlx.Backend) |> Nx.sin()

      for layer <- ["a", "b"] do
        weight = weights[layer <> ".weight"]
        expected = Nx.dot(x, [1], Nx.reshape(values[layer], {8, 128}), [1])
        compiled = Nx.Defn.jit(&Nx.dot(&1, [1], &2, [1]), compiler: Mlx.Compiler)

        for got <- [Nx.dot(x, [1], weight, [1]), compiled.(x, weight)] do
          assert Nx.to_number(Nx.all_close(got, expected, atol: 1.0e-4)) == 1
        end
      end

      assert weights["c.weight"].type == {:bf, 16}
      assert Weights.load(fixture("quantized"), type: :f32)["c.weight"].type == {:f, 32}
      # There is no such quantized tensor.
      assert_raise ArgumentError, fn -> Weights.load(fixture("quantized"), type: :f64) end
    end

    test "whose parts have other types are refused", %{tmp_dir: folder} do
      packed = Nx.iota({2, 8}, type: :u32)
      settings = %{"group_size" => 32, "bits" => 4}

      for {mode, scales, biases} <- [
            {"affine", Nx.iota({2, 2}, type: :f32), Nx.iota({2, 2}, type: :f16)},
            {"affine", Nx.iota({2, 2}, type: :u8), Nx.iota({2, 2}, type: :u8)},
            {"affine", Nx.iota({2, 2}, type: :f32), nil},
            {"mxfp4", Nx.iota({2, 2}, type: :f32), nil}
          ] do
        parts = if biases, do: %{"a.biases" => biases}, else: %{}
        parts = Map.merge(parts, %{"a.weight" => packed, "a.scales" => scales})
        Weights.save(Path.join(folder, "model.safetensors"), parts)
        config = %{quantization: Map.put(settings, "mode", mode)}
        write(folder, "config.json", JSON.encode!(config))
        assert_refused(folder, "don't fit")
      end
    end

    test "of a file without a config are named in the options" do
      path = Path.join(fixture("quantized"), "model.safetensors")
      assert "a.scales" in Weights.names(Weights.open(path))
      only = &String.starts_with?(&1, "a.")
      opts = [quantization: [bits: 4, group_size: 64]]

      # The other layers have other settings.
      error = assert_raise Mlx.Error, fn -> Weights.load(path, opts) end
      assert error.message =~ "don't fit"
      assert %{"a.weight" => %Nx.Tensor{}} = Weights.load(path, only: only)

      for wrong <- [[bits: 7, group_size: 64], [bits: 4], [bits: 4, group_size: 64, mode: :x]] do
        assert_raise ArgumentError, fn -> Weights.open(path, quantization: wrong) end
      end

      assert_raise ArgumentError, fn -> Weights.open(fixture("mlx.gguf"), opts) end
    end

    test "that don't fit are refused", %{tmp_dir: folder} do
      File.cp!(
        Path.join(fixture("quantized"), "model.safetensors"),
        Path.join(folder, "model.safetensors")
      )

      settings = %{"group_size" => 64, "bits" => 4}

      for {quantization, message} <- [
            {settings, "don't fit"},
            {%{settings | "bits" => 3}, "don't fit"},
            {%{settings | "bits" => "4"}, "not known"},
            {%{settings | "bits" => 2 ** 60}, "not known"},
            {%{settings | "group_size" => 0}, "not known"},
            {Map.put(settings, "mode", "other"), "not known"},
            {[], "none"},
            {"4", "none"}
          ] do
        write(folder, "config.json", JSON.encode!(%{quantization: quantization}))
        assert_refused(folder, message)
      end

      plain = %{"a" => false, "b" => false, "c" => false}
      write(folder, "config.json", JSON.encode!(%{quantization: Map.merge(settings, plain)}))
      assert %{"a.weight" => %Nx.Tensor{}, "a.scales" => _} = Weights.load(folder)
    end
  end

  describe "indexes" do
    defp index(folder, map) do
      write(folder, "model.safetensors.index.json", JSON.encode!(%{weight_map: map}))
    end

    defp shard(folder, name, tensors) do
      Weights.save(Path.join(folder, name), tensors)
    end

    test "name the files of the folder, which may be links", %{tmp_dir: folder} do
      a = Nx.tensor([1, 2, 3])
      File.mkdir_p!(Path.join(folder, "blobs"))
      shard(folder, "blobs/1.safetensors", %{"a" => a})
      model = Path.join(folder, "model")
      File.mkdir_p!(model)
      File.ln_s!("../blobs/1.safetensors", Path.join(model, "1.safetensors"))
      shard(model, "2 %s.safetensors", %{"b" => a, "c" => a})
      index(model, %{"a" => "1.safetensors", "b" => "2 %s.safetensors"})
      # Nothing is lost that the index doesn't name.
      assert %{"a" => _, "b" => _, "c" => _} = Weights.load(model)
    end

    test "that lead out of the folder are refused", %{tmp_dir: folder} do
      shard(folder, "a.safetensors", %{"a" => Nx.tensor(1)})
      model = Path.join(folder, "model")
      File.mkdir_p!(model)

      for file <- [
            "../a.safetensors",
            Path.expand("a.safetensors", folder),
            "..",
            ".",
            "",
            "x/../a",
            "a\0",
            "a\\b"
          ] do
        index(model, %{"a" => file})
        assert_refused(model, "no file of the folder")
      end
    end

    test "that are malformed, or not so, are refused", %{tmp_dir: folder} do
      shard(folder, "1.safetensors", %{"a" => Nx.tensor(1)})
      shard(folder, "2.safetensors", %{"a" => Nx.tensor(1), "b" => Nx.tensor(1)})

      for {text, message} <- [
            {"", "is no JSON"},
            {"{}", "no weight_map"},
            {"[]", "no weight_map"},
            {~s({"weight_map":{}}), "no weight_map"},
            {~s({"weight_map":{"a":1}}), "no strings"},
            {~s({"weight_map":{"a":[[[[["x"]]]]]}}), "nested"},
            {~s({"weight_map":{"a":"3.safetensors"}}), "no such file"},
            {~s({"weight_map":{"b":"1.safetensors"}}), "not so"},
            {~s({"weight_map":{"x%n":"1.safetensors"}}), "x%n"},
            {~s({"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}), "twice"},
            {~s({"weight_map":{"a":"model.safetensors.index.json"}}),
             "model.safetensors.index.json"}
          ] do
        write(folder, "model.safetensors.index.json", text)
        assert_refused(folder, message)
      end
    end

    test "mutations are loaded or refused", %{tmp_dir: folder} do
      tensors = for at <- 1..6, into: %{}, do: {"layer#{at}", Nx.iota({3})}
      Weights.save(folder, tensors, max_shard_size: 20)
      index = "model.safetensors.index.json"
      bytes = File.read!(Path.join(folder, index))

      for run <- 1..100 do
        fuzz(bytes, Path.join(folder, index), run, 1)

        try do
          assert map_size(Weights.load(folder)) == 6
        rescue
          error in Mlx.Error -> assert error.kind == :io
        end
      end
    end
  end

  test "folders without weights or without a config are refused", %{tmp_dir: folder} do
    assert_refused(folder, "has neither model.safetensors nor")
    error = assert_raise Mlx.Error, fn -> Weights.load_config(folder) end
    assert error.kind == :io
    assert error.message =~ "no such file"

    for {text, message} <- [
          {"[]", "no JSON object"},
          {"{", "no JSON"},
          {String.duplicate("[", 100), "nested"}
        ] do
      write(folder, "config.json", text)
      error = assert_raise Mlx.Error, fn -> Weights.load_config(folder) end
      assert error.message =~ message
    end

    write(folder, "config.json", ~s({"rope": {"factor": 1e-5, "on": null}}))
    assert Weights.load_config(folder) == %{"rope" => %{"factor" => 1.0e-5, "on" => nil}}
  end
end
