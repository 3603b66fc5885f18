defmodule Mlx.WeightsTest do
  # The examples write to the folder for temporary files, which is the same for all.
  use ExUnit.Case, async: false
  import Mlx.WeightFiles
  alias Mlx.Weights
  alias Mlx.Quantization.Tensor, as: Quantized

  @moduletag :tmp_dir

  setup %{tmp_dir: folder} do
    before = System.get_env("TMPDIR")
    System.put_env("TMPDIR", folder)

    on_exit(fn ->
      if before, do: System.put_env("TMPDIR", before), else: System.delete_env("TMPDIR")
    end)
  end

  doctest Mlx.Weights

  # More than what is copied through the host's memory on the CPU.
  @large 8 * 1024 * 1024

  defp large(folder) do
    bytes = :rand.bytes(@large)

    header = %{
      a: %{dtype: "U8", shape: [3], data_offsets: [0, 3]},
      b: %{dtype: "F32", shape: [2, div(@large, 8)], data_offsets: [3, 3 + @large]}
    }

    {write(folder, "large %s.safetensors", safetensors(header, "abc" <> bytes)), bytes}
  end

  test "large tensors are read from where they are, aligned or not", %{tmp_dir: folder} do
    {path, bytes} = large(folder)
    weights = Weights.open(path)
    tensor = Weights.tensor(weights, "b")
    assert tensor.shape == {2, div(@large, 8)}
    assert Nx.to_binary(tensor) == bytes
    # Another worker uses what the worker for files has read.
    sum = Nx.Defn.jit(&Nx.sum/1, compiler: Mlx.Compiler)
    bits = Nx.bitcast(tensor, :u32)
    assert Nx.to_number(sum.(bits)) == Nx.to_number(Nx.sum(bits))
  end

  test "large tensors in the other order of bytes and axes", %{tmp_dir: folder} do
    count = div(@large, 4)
    text = "{'descr': '>i4', 'fortran_order': True, 'shape': (#{div(count, 2)}, 2), }"
    numbers = for number <- 1..count, into: <<>>, do: <<number::32>>
    bytes = <<0x93, "NUMPY", 1, 0, byte_size(text)::little-16, text::binary, numbers::binary>>
    assert %{"x" => x} = folder |> write("x.npy", bytes) |> Weights.load()
    assert x.shape == {div(count, 2), 2}
    assert Nx.to_list(x[0..1]) == [[1, div(count, 2) + 1], [2, div(count, 2) + 2]]
  end

  test "the bytes of tensors don't take the memory of the VM", %{tmp_dir: folder} do
    {path, _bytes} = large(folder)
    :erlang.garbage_collect()
    before = :erlang.memory(:binary)
    tensors = for _ <- 1..8, do: path |> Weights.open() |> Weights.tensor("b")
    assert :erlang.memory(:binary) - before < @large
    assert length(tensors) == 8
  end

  test "files that change after they were opened are refused", %{tmp_dir: folder} do
    {path, bytes} = large(folder)

    changes = [
      truncated: fn -> File.write!(path, binary_part(bytes, 0, 100)) end,
      longer: fn -> File.write!(path, "x", [:append]) end,
      touched: fn -> File.touch!(path, 1_000_000) end,
      replaced: fn ->
        File.cp!(path, path <> "2")
        File.touch!(path <> "2", File.stat!(path, time: :posix).mtime)
        File.rename!(path <> "2", path)
      end,
      gone: fn -> File.rm!(path) end,
      folder: fn -> File.mkdir!(path) end
    ]

    for {change, apply_change} <- changes do
      weights = if change == :folder, do: weights_before(folder), else: Weights.open(path)
      apply_change.()

      for name <- ["a", "b"] do
        error = assert_raise Mlx.Error, fn -> Weights.tensor(weights, name) end
        assert {change, error.kind} == {change, :io}
        assert error.message =~ "large %s.safetensors"
      end

      if change not in [:gone, :folder], do: large(folder)
    end
  end

  defp weights_before(folder) do
    {path, _} = large(folder)
    weights = Weights.open(path)
    File.rm!(path)
    weights
  end

  test "what is no file is refused", %{tmp_dir: folder} do
    {_, 0} = System.cmd("mkfifo", [Path.join(folder, "pipe")])

    for {path, message} <- [
          {Path.join(folder, "100%s%n"), "no such file"},
          {Path.join(folder, "pipe"), "no file"},
          {"/dev/zero", "no file"},
          {"a\0b", "a\\0b"},
          {"", "no such file"}
        ] do
      error = assert_raise Mlx.Error, fn -> Weights.open(path) end
      assert error.kind == :io
      assert error.message =~ message
    end
  end

  # Other files stay open in this process, so those are counted that have the folder's name.
  defp open_files(folder) do
    for link <- Path.wildcard("/proc/self/fd/*"),
        {:ok, target} <- [File.read_link(link)],
        String.starts_with?(target, folder),
        do: target
  end

  test "no file stays open", %{tmp_dir: folder} do
    {path, _bytes} = large(folder)
    weights = Weights.open(path)
    Weights.load(weights)
    broken = write(folder, "broken.safetensors", "x")
    assert_raise Mlx.Error, fn -> Weights.open(broken) end
    File.write!(path, "x")
    assert_raise Mlx.Error, fn -> Weights.load(weights) end
    assert_raise Mlx.Error, fn -> Weights.save(Path.join(folder, "no/x.npz"), %{}) end
    assert open_files(folder) == []
  end

  describe "options" do
    test ":type casts floats and nothing else", %{tmp_dir: folder} do
      path = Path.join(folder, "x.safetensors")

      tensors = %{
        "f" => Nx.tensor([1.5]),
        "i" => Nx.tensor([3]),
        "h" => Nx.tensor([0.5], type: :f16)
      }

      Weights.save(path, tensors)
      loaded = Weights.load(path, type: :bf16)

      assert for({name, tensor} <- loaded, into: %{}, do: {name, tensor.type}) ==
               %{"f" => {:bf, 16}, "i" => {:s, 32}, "h" => {:bf, 16}}

      assert Nx.to_list(loaded["f"]) == [1.5]
      assert %Quantized{} = quantized = Weights.load(fixture("quantized"), type: :f16)["b.weight"]
      assert {quantized.scales.type, quantized.packed.type} == {{:f, 16}, {:u, 32}}
      assert_raise ArgumentError, fn -> Weights.load(path, type: :s32) end
      assert_raise ArgumentError, fn -> Weights.load(path, type: :c64) end
    end

    test ":device is one that is there" do
      weights = Weights.open(fixture("stored.npz"))
      error = assert_raise Mlx.Error, fn -> Weights.tensor(weights, "uint8", device: :tpu) end
      assert error.kind == :device
      assert Weights.tensor(weights, "uint8").data.device == Mlx.Device.default()
    end

    test ":only chooses, in its own order" do
      weights = Weights.open(fixture("stored.npz"))

      assert for({name, _} <- Weights.stream(weights, only: ["uint8", "bool"]), do: name) == [
               "uint8",
               "bool"
             ]

      assert Map.keys(Weights.load(weights, only: &(&1 == "bool"))) == ["bool"]
      assert_raise KeyError, fn -> Weights.load(weights, only: ["nobody"]) end
      assert_raise KeyError, fn -> Weights.tensor(weights, "nobody") end
      assert_raise KeyError, fn -> Weights.info(weights, "nobody") end
    end

    test ":progress is told of all bytes" do
      path = fixture("quantized")
      {:ok, agent} = Agent.start_link(fn -> [] end)
      report = fn done, total -> Agent.update(agent, &[{done, total} | &1]) end
      Weights.load(path, progress: report)
      calls = Agent.get(agent, & &1)
      assert [{total, total} | _] = calls
      weights = Weights.open(path)

      assert total ==
               weights
               |> Weights.names()
               |> Enum.map(&Weights.info(weights, &1).byte_size)
               |> Enum.sum()

      assert Enum.map(calls, &elem(&1, 0)) == calls |> Enum.map(&elem(&1, 0)) |> Enum.sort(:desc)
      assert length(calls) == 4
    end

    test "that are unknown are refused" do
      for call <- [&Weights.open/2, &Weights.load/2] do
        assert_raise ArgumentError, fn -> call.(fixture("scalar.npy"), unknown: 1) end
      end
    end
  end

  test "a stream reads a tensor when it is asked for", %{tmp_dir: folder} do
    {path, _} = large(folder)
    stream = path |> Weights.open() |> Weights.stream()
    assert [{"a", _}] = Enum.take(stream, 1)
    File.rm!(path)
    assert_raise Mlx.Error, fn -> Enum.take(stream, 1) end
  end

  test "many processes load at once", %{tmp_dir: folder} do
    {path, bytes} = large(folder)
    weights = Weights.open(path)

    load = fn _ ->
      weights |> Weights.tensor("b") |> Nx.to_binary() |> :erlang.md5()
    end

    results = 1..16 |> Task.async_stream(load, timeout: :infinity) |> Enum.uniq()
    assert results == [{:ok, :erlang.md5(bytes)}]
  end
end
