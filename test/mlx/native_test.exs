defmodule Mlx.NativeTest do
  use ExUnit.Case, async: true
  import Mlx.Samples, only: [integers: 0, types: 0, bounds: 1]
  import Mlx.TestDevice, only: [device: 0]
  alias Mlx.{Native, TestDevice}

  # Bits of floats by type: zeros, the least and the largest ones, infinities, and NaNs
  # that are quiet, signalling and negative, with a payload.
  @bits [
    f16: {16, [0, 0x8000, 1, 0x7BFF, 0x7C00, 0xFC00, 0x7E00, 0x7C01, 0xFE2A]},
    bf16: {16, [0, 0x8000, 1, 0x7F7F, 0x7F80, 0xFF80, 0x7FC0, 0x7F81, 0xFFAB]},
    f32:
      {32,
       [0, 0x80000000, 1, 0x7F7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFC12345]},
    f64:
      {64,
       [0, 0x8000000000000000, 1, 0x7FEFFFFFFFFFFFFF, 0x7FF0000000000000, 0xFFF0000000000000] ++
         [0x7FF8000000000000, 0x7FF0000000000001, 0xFFF8123456789ABC]}
  ]

  describe "round trips" do
    for type <- integers() do
      test "of #{type}" do
        {low, high} = bounds(unquote(type))
        numbers = [low, low + 1, 0, 1, high - 1, high]
        binary = numbers |> Nx.tensor(type: unquote(type)) |> Nx.to_binary()
        assert round_trip(binary, {2, 3}, unquote(type)) == binary
      end
    end

    for type <- TestDevice.types(Keyword.keys(@bits)), {size, bits} = @bits[type] do
      test "of every bit of #{type}" do
        binary = for bits <- unquote(bits), into: <<>>, do: <<bits::size(unquote(size))-native>>
        assert round_trip(binary, {9}, unquote(type)) == binary
        long = :binary.copy(binary, 300)
        assert round_trip(long, {300, 9}, unquote(type)) == long
      end
    end

    test "of every bit of c64" do
      {32, bits} = @bits[:f32]
      binary = for a <- bits, b <- bits, into: <<>>, do: <<a::32-native, b::32-native>>
      assert round_trip(binary, {81}, :c64) == binary
    end

    test "of scalars and of nothing" do
      for type <- TestDevice.types(types()) do
        {_, size} = Nx.Type.normalize!(type)
        scalar = <<0::size(size - 1), 1::1>>
        assert round_trip(scalar, {}, type) == scalar
        assert round_trip(<<>>, {0}, type) == <<>>
        assert round_trip(<<>>, {2, 0, 3}, type) == <<>>
      end
    end

    test "on either side of the size from which binaries are shared" do
      for size <- [63, 64, 65, 1023, 1024, 1025, 4096, 1_000_000] do
        binary = :rand.bytes(size)
        assert round_trip(binary, {size}, :u8) == binary
      end
    end

    test "of a part of a binary" do
      whole = :rand.bytes(10_000)

      for {from, size} <- [{1, 8}, {3, 1024}, {7, 1028}, {5, 8192}] do
        part = binary_part(whole, from, size)
        assert round_trip(part, {div(size, 4)}, :f32) == part
        assert round_trip(part, {size}, :s8) == part
      end
    end

    test "of bits that aren't aligned to bytes" do
      <<_::3, part::binary-size(2048), _::bitstring>> = :rand.bytes(3000)
      assert round_trip(part, {512}, :u32) == part
    end

    test "through an operation that doesn't touch the values" do
      binary = :rand.bytes(4096)
      tensor = Mlx.from_binary(binary, {16, 256}, :u8)
      assert tensor |> Nx.reshape({4096}) |> Nx.as_type(:u8) |> Mlx.to_binary() == binary
      assert tensor |> Nx.transpose() |> Nx.transpose() |> Mlx.to_binary() == binary
    end
  end

  describe "a binary that was not copied" do
    test "outlives its tensor" do
      binary = :rand.bytes(100_000)
      read = fn -> Mlx.to_binary(Mlx.from_binary(binary, {100_000}, :u8)) end
      kept = for _ <- 1..20, do: read.()
      churn()
      assert Enum.all?(kept, &(&1 == binary))
    end

    test "outlives the deallocation of its tensor" do
      binary = :rand.bytes(100_000)
      tensor = Mlx.from_binary(binary, {100_000}, :u8)
      kept = Mlx.to_binary(tensor)
      Nx.backend_deallocate(tensor)
      churn()
      assert kept == binary
    end

    test "outlives the process that read it" do
      binary = :rand.bytes(100_000)
      read = fn -> Mlx.to_binary(Mlx.from_binary(binary, {100_000}, :u8)) end
      kept = read |> Task.async() |> Task.await(:infinity)
      churn()
      assert kept == binary
    end

    test "doesn't change when the tensor is used again" do
      tensor = Nx.iota({5000}, type: :s32, backend: Mlx.Backend)
      kept = Mlx.to_binary(tensor)
      sum = Enum.reduce(1..10, tensor, fn _, sum -> Nx.add(sum, tensor) end)
      Mlx.eval(sum)
      assert kept == for(i <- 0..4999, into: <<>>, do: <<i::32-native>>)
    end
  end

  describe "the op table" do
    test "names every row with its operands and attributes" do
      table = Native.op_table()
      assert {:add, 2, [], 1} in table
      assert {:sum, 1, ["axes", "keep"], 1} in table
      assert {:concatenate, nil, _, 1} = List.keyfind(table, :concatenate, 0)
    end
  end

  describe "instructions that can't run" do
    test "are refused before they are queued" do
      assert %{kind: :unsupported, message: message} = refused([{:frobnicate, [0], []}])
      assert message =~ "frobnicate"
      assert refused([{:add, [0], []}]).message =~ "2 operands"
      assert refused([{:add, [0, 0], [1]}]).message =~ "0 attributes"
      assert refused([{:add, [0, 9], []}]).message =~ "register 9"
      assert refused([{:add, [0, 1], []}]).message =~ "register 1"
    end

    test "of terms that are no instructions raise" do
      for instructions <- [
            :none,
            [:none],
            [{:add, 0, []}],
            [{"add", [0, 0], []}],
            [{:sum, [0], [self(), true]}]
          ] do
        assert catch_error(Native.stream_submit(device(), instructions, [input()], [1]))
      end

      assert catch_error(Native.stream_submit(:tpu, [], [input()], [0]))
      assert catch_error(Native.stream_submit(device(), [], [:ref], [0]))
    end

    test "with attributes of another kind fail where the result is read" do
      [ref] = submit([{:sum, [0], [1.5, true]}], [1])
      assert {:error, %{op: "sum", message: message}} = read(ref)
      assert message =~ "axes"
    end

    if Mlx.Device.available() == [:cpu] do
      test "on a device that isn't there are refused" do
        assert {:error, %{kind: :device}} = Native.stream_submit(:gpu, [], [input()], [0])
        assert {:error, %{kind: :device}} = Native.stream_synchronize(:gpu, make_ref())
        assert {:error, %{kind: :device}} = Native.tensor_from_binary(:gpu, <<0>>, [1], {:u, 8})
      end
    end
  end

  test "a program gives the registers it is asked for, inputs included" do
    instructions = [{:add, [0, 0], []}, {:multiply, [1, 0], []}]
    refs = submit(instructions, [2, 0, 1, 2])
    assert Enum.map(refs, &read/1) == Enum.map([18, 3, 6, 18], &{:ok, <<&1>>})
  end

  describe "a row on tensors" do
    test "takes all of them in their order" do
      [three, four] = for byte <- [3, 4], do: input(byte)
      assert run(:subtract, [four, three]) == {:ok, <<1>>}
      assert run(:left_shift, [three, four]) == {:ok, <<48>>}
      assert run(:pad, [three, four], [[0], [1], [0]]) == {:ok, <<3, 4>>}
      assert run(:full, [], [<<7>>, [2], {:u, 8}]) == {:ok, <<7, 7>>}
    end

    test "is refused before it is queued" do
      for {row, inputs, attributes, message} <- [
            {:frobnicate, [input()], [], "frobnicate"},
            {:add, [input()], [], "2 operands"},
            {:add, [input(), input()], [1], "0 attributes"}
          ] do
        assert {:error, error} = Native.stream_run(device(), row, inputs, attributes)
        assert error.message =~ message
      end

      assert catch_error(Native.stream_run(device(), "add", [input(), input()], []))
      assert catch_error(Native.stream_run(device(), :add, [input(), self()], []))
      assert catch_error(Native.stream_run(:tpu, :negate, [input()], []))
    end

    test "that has been let go of isn't there" do
      ref = input()
      Native.tensor_deallocate(ref)
      assert {:error, error} = Native.stream_run(stream(), :negate, [ref], [])
      assert error.message == "the tensor was deallocated"
    end

    defp run(row, inputs, attributes \\ []) do
      {status, ref} = Native.stream_run(stream(), row, inputs, attributes)
      assert status in [:ok, :collect]
      read(ref)
    end
  end

  test "a tensor is let go of once" do
    ref = input()
    assert Native.tensor_deallocate(ref) == {:ok, true}
    assert Native.tensor_deallocate(ref) == {:ok, false}

    for fun <-
          [&Native.tensor_read(&1, :tag), &Native.tensor_eval([&1], :tag)] ++
            [&Native.tensor_async_eval/1, &Native.tensor_signature(&1, :tag)] do
      assert {:error, %{message: "the tensor was deallocated"}} = fun.(ref)
    end
  end

  test "a shape that no memory holds is refused" do
    for dims <- [[-1], [2 ** 31], [2 ** 40], [65_536, 65_536, 65_536, 65_536]] do
      assert {:error, %{kind: :shape}} =
               Native.tensor_from_binary(device(), <<1>>, dims, {:u, 8})
    end
  end

  defp round_trip(binary, shape, type) do
    binary |> Mlx.from_binary(shape, type) |> Mlx.to_binary()
  end

  defp input(byte \\ 3), do: Mlx.from_binary(<<byte>>, {1}, :u8).data.ref

  defp refused(instructions) do
    assert {:error, error} =
             Native.stream_submit(stream(), instructions, [input()], [1])

    error
  end

  defp submit(instructions, outputs) do
    {status, refs} = Native.stream_submit(stream(), instructions, [input()], outputs)
    assert status in [:ok, :collect]
    refs
  end

  # The queue that tests share may be full.
  defp stream, do: Mlx.Stream.new().ref

  defp read(ref) do
    tag = make_ref()

    with {:ok, :pending} <- Native.tensor_read(ref, tag) do
      assert_receive {^tag, outcome}
      outcome
    end
  end

  # Makes MLX and the VM use memory again that they believe to be free.
  defp churn do
    :erlang.garbage_collect()
    for _ <- 1..20, do: Mlx.eval(Nx.iota({100_000}, type: :u8, backend: Mlx.Backend))
    :erlang.garbage_collect()
    Mlx.synchronize()
  end
end
